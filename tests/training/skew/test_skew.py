"""What was served otherwise than a table says is found, with why; and nothing else is."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install ctr-serving[events]")

from app.errors import DataError
from app.features.encoder import Encoder
from app.training.skew.offline_table import ComparedSide, OfflineTable
from app.training.skew.skew import Skew, find_skew
from tests.training.skew.worlds import FEATURES, SCHEMA, UNTIL_H, Corruption, Service, World


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def table(world: World, folder: Path, side: str = "both") -> Path:
    """Write what the features were, of users and items in one table."""
    folder.mkdir(exist_ok=True)
    frames = [frame for name, frame in world.tables.items() if side in (name, "both")]
    path = folder / "features.parquet"
    pl.concat(frames, how="diagonal").write_parquet(path)
    return path


def compare(
    world: World, folder: Path, answers: int = 1500, at: str | None = "at", until_h: float = UNTIL_H, **service: object
) -> Skew:
    Service(world, folder / "events", **service).record(answers, hours=until_h)  # type: ignore[arg-type]
    return find_skew(folder / "events", table(world, folder), at=at)


def lower(name: str) -> Corruption:
    return lambda given: given[name].str.to_lowercase()


def test_of_thirty_fields_none_differs_where_none_was_corrupted(world: World, tmp_path: Path) -> None:
    found = compare(world, tmp_path)
    assert len(found.fields) == len(FEATURES) == 30
    assert {one.field: one.different for one in found.fields if one.different} == {}
    assert [side.rows for side in found.sides] == [1500, 6000]
    assert not found.is_skewed
    assert found.not_compared == {"hour": "comes with each request"}


def test_three_corrupted_fields_of_thirty_are_found_with_their_causes(world: World, tmp_path: Path) -> None:
    found = compare(
        world,
        tmp_path,
        corrupt={
            "user_word1": lower("user_word1"),
            "item_number2": lambda given: given["item_number2"].set(pl.Series(range(len(given))) % 20 == 0, None),
        },
        lag_h={"item_code1": 6.0},
    )
    causes = {one.field: one.causes[0] for one in found.skewed}
    assert set(causes) == {"user_word1", "item_number2", "item_code1"}
    assert (causes["user_word1"].cause, causes["user_word1"].detail) == ("encoding", "lower case")
    assert causes["item_number2"].cause == "missing_online"
    assert causes["item_code1"].cause == "stale"
    assert causes["item_code1"].hours == pytest.approx(6.0, abs=0.05)
    assert all(cause.share > 0.95 for cause in causes.values())
    assert all(not one.different for one in found.fields if one.field not in causes)


def every_third(given: pl.DataFrame, name: str, other: pl.Series) -> pl.Series:
    third = pl.Series(range(len(given))) % 3 == 0
    return other.zip_with(third, given[name])


CORRUPTIONS: dict[str, tuple[str, Corruption, str, str]] = {
    "upper case": ("user_word2", lambda given: given["user_word2"].str.to_uppercase(), "encoding", "upper case"),
    "zeros": (
        "item_code0",
        lambda given: given["item_code0"].cast(pl.String).str.zfill(6),
        "encoding",
        "zeros before it, 6 letters in all",
    ),
    "the name before it": (
        "user_word3",
        lambda given: "user_word3=" + given["user_word3"],
        "encoding",
        "user_word3= before it",
    ),
    "quotes, at times": (
        "user_word1",
        lambda given: every_third(given, "user_word1", '"' + given["user_word1"] + '"'),
        "encoding",
        "in double quotes",
    ),
    "short texts": (
        "item_word4",
        lambda given: given["item_word4"].str.slice(0, 3),
        "truncated",
        "the first 3 letters",
    ),
    "the word None": (
        "user_word0",
        lambda given: given["user_word0"].fill_null("None"),
        "missing_offline",
        "served as the word 'None'",
    ),
    "a default word": (
        "item_word1",
        lambda given: every_third(given, "item_word1", pl.Series(["unknown"] * len(given))),
        "default_online",
        "always the word 'unknown'",
    ),
    "rounded": ("user_number1", lambda given: given["user_number1"].round(1), "encoding", "rounded to 1 decimals"),
    "a unit": (
        "item_number3",
        lambda given: given["item_number3"] * 1000,
        "encoding",
        "times 1000, as milliseconds for seconds",
    ),
    "a factor": ("item_number4", lambda given: given["item_number4"] * 1.07, "encoding", "times 1.07"),
    "a bound": ("user_number4", lambda given: given["user_number4"].clip(None, 30), "encoding", "bounded by 30"),
    "a default number": (
        "user_number5",
        lambda given: every_third(given, "user_number5", pl.Series([-1.0] * len(given))),
        "default_online",
        "always -1",
    ),
    "short lists": (
        "user_tags",
        lambda given: given["user_tags"].list.head(2),
        "truncated",
        "online has the first 2 of the list",
    ),
    "joined lists": (
        "item_tags",
        lambda given: given["item_tags"].list.join("|"),
        "encoding",
        "one text, joined by '|'",
    ),
    "lost weights": (
        "item_likes",
        lambda given: given["item_likes"].list.eval(pl.element().struct.field("key")),
        "encoding",
        "without weights",
    ),
    "short items": (
        "user_tags",
        lambda given: given["user_tags"].list.eval(pl.element().str.slice(0, 4)),
        "truncated",
        "the first 4 letters",
    ),
    "another source": ("user_word4", lambda given: given["user_word4"].shuffle(seed=3), "other", ""),
    "noise": (
        "item_number5",
        lambda given: given["item_number5"] + pl.Series(np.random.default_rng(0).normal(0, 1, len(given))),
        "other",
        "",
    ),
}


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_is_named(world: World, tmp_path: Path, name: str) -> None:
    field, corruption, cause, detail = CORRUPTIONS[name]
    # The files of ten hours, and not of forty: values that are corrupted are so at any time.
    found = compare(world, tmp_path, answers=400, until_h=40, corrupt={field: corruption})
    assert [one.field for one in found.fields if one.different] == [field]
    [skewed] = found.skewed
    assert (skewed.causes[0].cause, skewed.causes[0].detail) == (cause, detail)
    assert skewed.causes[0].share > 0.9
    assert sum(one.share for one in skewed.causes) == pytest.approx(1.0)


@pytest.mark.parametrize("lag_h", [2.0, 5.0, 24.0])
@pytest.mark.parametrize("field", ["user_word1", "item_number0", "user_tags"])
def test_late_values_are_late_by_the_right_time(world: World, tmp_path: Path, field: str, lag_h: float) -> None:
    [skewed] = compare(world, tmp_path, answers=1000, until_h=50, lag_h={field: lag_h}).skewed
    assert skewed.causes[0].cause == "stale"
    assert skewed.causes[0].hours == pytest.approx(lag_h, abs=0.1)
    assert skewed.causes[0].share > 0.95


def test_values_that_the_table_has_only_later_are_ahead(world: World, tmp_path: Path) -> None:
    [skewed] = compare(world, tmp_path, lag_h={"item_code0": -3.0}).skewed
    assert skewed.causes[0].cause == "ahead"
    assert skewed.causes[0].hours == pytest.approx(3.0, abs=0.1)


def test_two_causes_of_one_field_are_both_named(world: World, tmp_path: Path) -> None:
    def both(given: pl.DataFrame) -> pl.Series:
        rows = pl.Series(range(len(given))) % 2 == 0
        return every_third(given, "user_word2", pl.Series([None] * len(given), dtype=pl.String)).zip_with(
            rows, given["user_word2"].str.to_uppercase()
        )

    [skewed] = compare(world, tmp_path, corrupt={"user_word2": both}).skewed
    assert [cause.cause for cause in skewed.causes] == ["encoding", "missing_online"]


def test_a_share_within_the_tolerance_is_no_skew(world: World, tmp_path: Path) -> None:
    Service(
        world,
        tmp_path / "events",
        {"user_number2": lambda given: given["user_number2"].set(pl.Series(range(len(given))) % 50 == 0, None)},
    ).record(1000)
    data = table(world, tmp_path)
    found = find_skew(tmp_path / "events", data, at="at", tolerance=0.03)
    assert not found.is_skewed
    assert {one.field: one.different for one in found.fields if one.different} == {"user_number2": 20}
    assert find_skew(tmp_path / "events", data, at="at", tolerance=0.01).is_skewed


def test_a_table_without_times_holds_always_by_its_last_rows(world: World, tmp_path: Path) -> None:
    last = copy.copy(world)
    last.tables = {
        side: frame.with_columns(pl.exclude("at", f"{side}_id").last().over(f"{side}_id"))
        for side, frame in world.tables.items()
    }
    found = compare(last, tmp_path, at=None)
    assert not [one for one in found.fields if one.different]
    assert [side.repeated for side in found.sides] == [35 * 200] * 2


def test_users_and_items_may_be_in_tables_of_their_own(world: World, tmp_path: Path) -> None:
    Service(world, tmp_path / "events", {"item_word2": lower("item_word2")}).record(300)
    for side, skewed in (("user", []), ("item", ["item_word2"])):
        found = find_skew(tmp_path / "events", table(world, tmp_path / side, side), at="at")
        assert [one.side for one in found.sides] == [side]
        assert [one.field for one in found.skewed] == skewed
        assert sum("no" in why for why in found.not_compared.values()) == 15


def test_what_the_table_has_that_is_no_number_is_shown(world: World, tmp_path: Path) -> None:
    Service(world, tmp_path / "events").record(300)
    frame = world.tables["user"].with_columns(
        pl.col("user_number1").cast(pl.String).str.replace(".", ",", literal=True)
    )
    frame.write_parquet(tmp_path / "users.parquet")
    [skewed] = find_skew(tmp_path / "events", tmp_path / "users.parquet", at="at").skewed
    assert skewed.causes[0].cause == "missing_offline"
    assert re.fullmatch(r"'-?\d+,\d+' is no number", skewed.causes[0].detail)


def test_what_the_table_does_not_know_is_counted_and_not_called_skew(world: World, tmp_path: Path) -> None:
    Service(world, tmp_path / "events").record(600)
    frame = world.tables["user"].filter(pl.col("user_id").cast(pl.Int64) < 50, pl.col("at") > pl.col("at").min())
    frame.drop("user_word3").write_parquet(tmp_path / "users.parquet")
    found = find_skew(tmp_path / "events", tmp_path / "users.parquet", at="at")
    [side] = found.sides
    assert side.rows + side.without_row == 600
    assert 0 < side.rows < 300
    assert not found.is_skewed
    assert found.not_compared["user_word3"] == "the table has no column user_word3"


def test_a_table_of_others_is_no_table_without_skew(world: World, tmp_path: Path) -> None:
    Service(world, tmp_path / "events").record(100)
    frame = world.tables["user"].with_columns(("x" + pl.col("user_id").cast(pl.String)).alias("user_id"))
    frame.write_parquet(tmp_path / "users.parquet")
    with pytest.raises(DataError, match="nothing to compare, as it knows none of the users or items of 100 rows"):
        find_skew(tmp_path / "events", tmp_path / "users.parquet", at="at")


def test_entities_without_any_feature_are_counted_by_themselves(world: World, tmp_path: Path) -> None:
    nothing = {
        name: (lambda given, name=name: given[name].set(pl.Series(range(len(given))) % 10 == 0, None))
        if world.tables["user"][name].dtype != pl.List
        else (lambda given, name=name: given.select(pl.when(pl.int_range(pl.len()) % 10 != 0).then(name)).to_series())
        for name in FEATURES
        if name.startswith("user")
    }
    found = compare(world, tmp_path, answers=1000, corrupt=nothing)
    assert [one.different for one in found.fields] == [0] * 30
    assert found.sides[0].missing_online == 100
    assert found.is_skewed


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 20)), max_size=40),
    st.lists(st.tuples(st.integers(0, 6), st.integers(-1, 21)), min_size=1, max_size=40),
)
def test_the_row_that_held_is_found_as_a_plain_search_finds_it(
    rows: list[tuple[int, int]], asked: list[tuple[int, int]]
) -> None:
    [compared] = [ComparedSide.of(SCHEMA, "user", ["user_id", "user_word0"])]
    assert compared is not None
    slots = Encoder(SCHEMA, "user").encode_many([{}] * len(rows), [str(user) for user, _ in rows])
    table = OfflineTable(compared, slots, np.array([at for _, at in rows], np.int64), True)
    ids = Encoder(SCHEMA, "user").encode_many([{}] * len(asked), [str(user) for user, _ in asked]).keys
    found = table.as_of(ids[:, compared.id_slot], np.array([at for _, at in asked]))
    for position, (user, at) in zip(found.tolist(), asked, strict=True):
        held = [(since, row) for row, (one, since) in enumerate(rows) if one == user and since <= at]
        assert (table.row_P[position] if position >= 0 else None) == (max(held)[1] if held else None)


def of_two_values(world: World, seed: int) -> World:
    """Return the world with yes or no, drawn at random, in a word of users."""
    two = pl.Series(np.random.default_rng(seed).choice(["yes", "no"], len(world.tables["user"])))
    other = copy.copy(world)
    other.tables = {**world.tables, "user": world.tables["user"].with_columns(two.alias("user_word4"))}
    return other


@pytest.mark.parametrize("seed", range(3))
def test_a_field_of_two_values_that_are_drawn_anew_is_not_called_late(world: World, tmp_path: Path, seed: int) -> None:
    drawn: Corruption = lambda given: pl.Series(np.random.default_rng(seed).choice(["yes", "no"], len(given)))  # noqa: E731
    [skewed] = compare(of_two_values(world, seed), tmp_path, corrupt={"user_word4": drawn}).skewed
    assert (skewed.field, skewed.causes[0].cause) == ("user_word4", "other")


def test_a_field_of_two_values_that_are_late_is_called_so(world: World, tmp_path: Path) -> None:
    [skewed] = compare(of_two_values(world, 0), tmp_path, lag_h={"user_word4": 6.0}).skewed
    assert skewed.causes[0].cause == "stale"
    assert skewed.causes[0].hours == pytest.approx(6.0, abs=0.1)
