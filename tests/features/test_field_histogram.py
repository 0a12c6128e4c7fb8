"""Histograms count every value in one bin, as a plain count of raw values does."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.features.encoder import Encoder
from app.features.field_histogram import MAX_BINS, FieldHistogram, SideBins, histogram_of
from app.features.fields import Side
from app.features.schema import FeatureSchema, parse_schema
from app.features.slots import Slots

SCHEMA = parse_schema("""\
version: 1
fields:
  - {name: city, entity: user, type: categorical}
  - {name: genres, entity: user, type: multi_categorical, max_length: 3, separator: "|"}
  - {name: age, entity: user, type: numeric}
""")
SIDE: Side = "user"
rows = st.lists(
    st.fixed_dictionaries(
        {
            "city": st.sampled_from([None, "", *(f"c{n}" for n in range(40))]),
            "genres": st.lists(st.sampled_from("abcdefgh"), max_size=3),
            "age": st.one_of(st.none(), st.integers(0, 90)),
        }
    ),
    min_size=1,
    max_size=60,
)


def encoded(raw: list[dict[str, object]], schema: FeatureSchema = SCHEMA) -> Slots:
    return Encoder(schema, SIDE).encode_many(raw, [str(n) for n in range(len(raw))])


def histograms(slots: Slots) -> dict[str, FieldHistogram]:
    return {field.name: histogram_of(field, place, slots) for field, place in SCHEMA.layout(SIDE)}


@given(rows)
def test_shares_are_those_of_the_raw_values(raw: list[dict[str, object]]) -> None:
    found = histograms(encoded(raw))
    for histogram in found.values():
        assert sum(histogram.shares) == pytest.approx(1, abs=MAX_BINS * 1e-6)
        assert len(histogram.shares) <= MAX_BINS
    assert found["city"].missing == pytest.approx(sum(not row["city"] for row in raw) / len(raw), abs=1e-6)
    cities = Counter(row["city"] for row in raw if row["city"])
    own = cities.most_common(MAX_BINS - 2)
    assert len(found["city"].keys) == len(own)
    assert sorted(found["city"].shares[:-2]) == pytest.approx(sorted(count / len(raw) for _, count in own), abs=1e-6), (
        "the most frequent have bins of their own"
    )
    values = sum(max(1, len(set_of(row))) for row in raw)
    assert found["genres"].missing == pytest.approx(sum(not row["genres"] for row in raw) / values, abs=1e-6)
    assert found["age"].missing == pytest.approx(sum(row["age"] is None for row in raw) / len(raw), abs=1e-6)


def set_of(row: dict[str, object]) -> list[object]:
    genres = row["genres"]
    assert isinstance(genres, list)
    return genres


@given(rows, rows)
def test_other_rows_are_counted_in_the_same_bins(raw: list[dict[str, object]], others: list[dict[str, object]]) -> None:
    known = histograms(encoded(raw))
    counts = SideBins(SCHEMA, SIDE, known).counts(encoded(others))
    cities = {row["city"] for row in raw if row["city"]}
    assert counts["city"].sum() == len(others)
    if len(cities) <= MAX_BINS - 2:
        assert counts["city"][-2] == sum(bool(row["city"]) and row["city"] not in cities for row in others)
    borders = known["age"].borders
    by_hand = Counter(
        len(borders) + 1 if row["age"] is None else sum(border < float(str(row["age"])) for border in borders)
        for row in others
    )
    assert counts["age"].tolist() == [by_hand[number] for number in range(len(borders) + 2)]


def test_numbers_are_in_bins_of_equal_shares() -> None:
    rng = np.random.default_rng(51)
    found = histograms(encoded([{"age": float(age)} for age in rng.lognormal(3, 1, 20_000)]))["age"]
    assert len(found.shares) == MAX_BINS
    assert found.shares[:-1] == pytest.approx([1 / (MAX_BINS - 1)] * (MAX_BINS - 1), abs=1e-3)


def test_a_field_that_training_never_saw_has_two_bins() -> None:
    slots = encoded([{}, {}])
    assert [histogram.shares for histogram in histograms(slots).values()] == [(0.0, 1.0)] * 3
    assert math.isnan(slots.values[0, SCHEMA.layout(SIDE).slots["age"].start])


def test_a_histogram_of_some_fields_is_counted_for_those_alone() -> None:
    slots = encoded([{"city": "a"}])
    assert SideBins(SCHEMA, SIDE, {"city": histograms(slots)["city"]}).counts(slots).keys() == {"city"}
