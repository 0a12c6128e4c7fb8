"""The parts of a logit: they add up to it, and each is what the formula says, field by field."""

from __future__ import annotations

import asyncio
import itertools
import math
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from app.features.encoder import Encoder
from app.features.schema import parse_schema
from app.features.slot_layout import declared_name
from app.features.slots import Slots
from app.models.base import CtrModel
from app.models.preprocessing import Preprocessing
from app.ranking import explain, logit_parts
from app.ranking.explain import Explainer
from app.ranking.logit_parts import MAX_ERROR, LogitPart, LogitParts
from app.registry.artifact.artifact import Artifact
from app.registry.artifact.export import write
from app.registry.artifact.load import load
from app.runtime.loop_pacer import SliceTurns
from tests.factories import fitted, golden, raw_context, raw_item, raw_user, tiny_model, with_statistics
from tests.models import reference
from tests.models.reference import Example, Vector
from tests.models.test_hashed_crosses import CROSSES, DECLARED
from tests.models.test_options import CHOSEN, DIMS, randomised, weights_of
from tests.ranking.explanations import PartKey, effects_of, key_of, parts_of
from tests.turns import CountedTurns

MODELS_OF_PARTS = ("lr", "fm", "hofm", "deepfm", "wide_deep", "nfm")
OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("fm", {"crosses": CHOSEN}),
    ("fm", {"dims": DIMS}),
    ("hofm", {"order": 4}),
    ("deepfm", {"element_wise": True, "crosses": CHOSEN, "dims": {"item_id": 3}, "hidden": (16,)}),
    ("deepfm", {"dims": DIMS, "hidden": (16, 8)}),
    ("nfm", {"crosses": CHOSEN, "hidden": (16,)}),
    ("nfm", {"dims": DIMS, "hidden": (16, 8), "batch_norm": False}),
]


def published(folder: Path, model: CtrModel, preprocessing: Preprocessing) -> Artifact:
    """Write a version and load it, so that its program is read and not the module."""
    write(folder, model, preprocessing.schema, name="m", golden=golden())
    return load(folder)


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[CtrModel, Artifact]]:
    """Return a model of each class with parts, which read statistics of fields and of pairs, and a version of it."""
    models = {name: tiny_model(5, name, with_statistics()) for name in MODELS_OF_PARTS}
    folder = tmp_path_factory.mktemp
    return {name: (model, published(folder(name), model, with_statistics())) for name, model in models.items()}


def random_pair(preprocessing: Preprocessing, dice: random.Random) -> tuple[Slots, Slots]:
    """Encode a user and an item, known or not, that lack some of their values."""
    user, item = dice.randrange(60), dice.randrange(90)  # past 39 and 59 nothing was seen in training
    user_raw, item_raw = (
        {name: value for name, value in raw.items() if dice.random() < 0.9}
        for raw in (raw_user(user) | raw_context(dice.randrange(2000)), raw_item(item))
    )
    schema = preprocessing.schema
    return Encoder(schema, "user").encode(user_raw, str(user)), Encoder(schema, "item").encode(item_raw, str(item))


def split_of(version: Artifact, user: Slots, item: Slots) -> list[LogitPart]:
    return asyncio.run(LogitParts(version, SliceTurns()).split(user, item))


def assert_adds_up(version: Artifact, preprocessing: Preprocessing, pairs: int) -> None:
    dice, logits = random.Random(7), []
    for _ in range(pairs):
        user, item = random_pair(preprocessing, dice)
        logits.append(float(version.logits_of_pairs(*(Slots(s.keys[None], s.values[None]) for s in (user, item)))))
        split = split_of(version, user, item)
        assert sum(part.value for part in split) == pytest.approx(logits[-1], abs=MAX_ERROR)
        assert all(part.value != 0 for part in split)
        assert len(set(map(key_of, split))) == len(split)
    assert np.std(logits) > 0.05, "a test on equal logits would see nothing"


@pytest.mark.parametrize("pairs", [30, pytest.param(1000, marks=pytest.mark.faults)])
@pytest.mark.parametrize("name", MODELS_OF_PARTS)
@torch.inference_mode()
def test_parts_add_up_to_the_logit(versions: dict[str, tuple[CtrModel, Artifact]], name: str, pairs: int) -> None:
    assert_adds_up(versions[name][1], with_statistics(), pairs)


@pytest.mark.parametrize(("pairs", "name", "options"), [
    (10, *OPTIONS[4]), (10, *OPTIONS[6]),
    *(pytest.param(1000, *option, marks=pytest.mark.faults) for option in OPTIONS),
])  # fmt: skip
@torch.inference_mode()
def test_parts_add_up_with_the_options_of_models(
    tmp_path: Path, pairs: int, name: str, options: dict[str, Any]
) -> None:
    version = published(tmp_path, randomised(name, fitted(), **options), fitted())
    assert_adds_up(version, fitted(), pairs)


def reference_parts(model: CtrModel, preprocessing: Preprocessing, user: Slots, item: Slots) -> dict[PartKey, float]:
    """Compute the parts by loops over fields, in double precision."""
    weights, example = weights_of(model), Example(preprocessing, user, item)
    names = [declared_name(vector) for vector in preprocessing.vectors]
    places = {name: place for place, name in reversed(list(enumerate(names)))}
    fields = list(zip(names, example.fields["user"] + example.fields["item"], strict=True))
    parts: dict[PartKey, float] = defaultdict(float)
    parts["bias", (), None] = float(weights["bias"][0])
    for name, slots in fields:
        parts["first", (name,), None] += sum(x * float(weights["table_RE"][row, 0]) for row, x in slots)
    if model.name in ("fm", "hofm", "deepfm"):
        vectors = [(name, reference.vector(slots, weights["table_RE"][:, 1:])) for name, slots in fields]
        for (left, e_f), (right, e_g) in itertools.combinations(vectors, 2):
            first, second = sorted((left, right), key=places.__getitem__)
            parts["pair", (first, second), None] += float(e_f @ e_g)
    if model.name == "hofm":
        parts["order", (), 3] = reference.triples(example, weights)
    if model.name == "wide_deep":
        parts["pair", ("liked_genres", "genres"), None] = reference.wide(example, weights)
    if model.name in ("deepfm", "wide_deep"):
        parts["deep", (), None] = reference.deep_with_pairs(example, weights)
    if model.name == "nfm":
        parts |= slopes(example, weights)
    return parts


def slopes(example: Example, weights: dict[str, Vector]) -> dict[PartKey, float]:
    """Compute what each pooled cross of nfm gives from its network a little to either side of it."""

    def network(f: Vector) -> float:
        return float(reference.network(weights, "pooled.deep", reference.normed(weights, "pooled.norm", f))[0])

    f, step = reference.pooled(example, weights), 1e-6
    steps = step * np.eye(len(f))
    values = [f[k] * (network(f + steps[k]) - network(f - steps[k])) / (2 * step) for k in range(len(f))]
    parts: dict[PartKey, float] = {("dimension", (), k): value for k, value in enumerate(values)}
    return {**parts, ("deep", (), None): network(f) - sum(values)}


@pytest.mark.parametrize("name", MODELS_OF_PARTS)
@torch.inference_mode()
def test_each_part_is_what_the_formula_says(versions: dict[str, tuple[CtrModel, Artifact]], name: str) -> None:
    dice, (model, version) = random.Random(3), versions[name]
    for _ in range(3):
        user, item = random_pair(with_statistics(), dice)
        expected = reference_parts(model, with_statistics(), user, item)
        actual = {key_of(part): part.value for part in split_of(version, user, item)}
        assert {**dict.fromkeys(expected, 0.0), **actual} == pytest.approx(expected, abs=1e-5)


@torch.inference_mode()
def test_declared_hashed_crosses_are_pairs(tmp_path: Path) -> None:
    preprocessing = fitted(parse_schema(DECLARED))
    model = randomised("wide_deep", preprocessing, hidden=(16,))
    version = published(tmp_path, model, preprocessing)
    assert_adds_up(version, preprocessing, 10)
    user, item = random_pair(preprocessing, random.Random(1))
    example, weights = Example(preprocessing, user, item), weights_of(model)
    start, expected = 0, dict[frozenset[str], float]()
    for left, right, buckets in CROSSES:
        own = {"cross_table_C1": weights["cross_table_C1"][start : start + buckets]}
        expected[frozenset(map(declared_name, (left, right)))] = reference.crossed(
            example, own, [(left, right, buckets)]
        )
        start += buckets
    actual = {frozenset(part.fields): part.value for part in split_of(version, user, item) if part.part == "pair"}
    assert actual == pytest.approx(expected, abs=1e-5)


@torch.inference_mode()
def test_of_many_pairs_the_strongest_are_told_apart(
    versions: dict[str, tuple[CtrModel, Artifact]], monkeypatch: pytest.MonkeyPatch
) -> None:
    version = versions["fm"][1]
    user, item = random_pair(with_statistics(), random.Random(2))
    every = [part for part in split_of(version, user, item) if part.part == "pair"]
    assert [abs(part.value) for part in every] == sorted((abs(part.value) for part in every), reverse=True)
    monkeypatch.setattr(logit_parts, "MAX_PAIRS", 10)
    *strongest, others = (part for part in split_of(version, user, item) if part.part == "pair")
    assert strongest == every[:10]
    assert others.fields == ()
    assert others.value == pytest.approx(sum(part.value for part in every[10:]), abs=1e-5)


@pytest.mark.parametrize(
    ("architecture", "reason"),
    [
        ("dcn", "the logit of dcn is no sum of parts"),
        ("nfm", "cannot be told"),
        ("fm", "do not add up"),
    ],
)
async def test_a_version_without_such_parts_says_so_and_has_effects(
    versions: dict[str, tuple[CtrModel, Artifact]], architecture: str, reason: str
) -> None:
    """The program is a deepfm's whatever the manifest says: as one that this code does not know would be."""
    deepfm = versions["deepfm"][1]
    manifest = msgspec.structs.replace(deepfm.manifest, architecture=architecture)
    version = Artifact(manifest, deepfm.schema, deepfm.program, deepfm.device, deepfm.manifest_sha256)
    user, item = random_pair(with_statistics(), random.Random(4))
    explanation = await Explainer(version, user, SliceTurns()).explain(item)
    assert explanation.parts is msgspec.UNSET
    assert reason in str(explanation.no_parts)
    with_parts = await Explainer(deepfm, user, SliceTurns()).explain(item)
    assert parts_of(with_parts)
    assert effects_of(explanation) == effects_of(with_parts) != {}


async def test_effects_of_many_fields_are_computed_in_turns(
    versions: dict[str, tuple[CtrModel, Artifact]], monkeypatch: pytest.MonkeyPatch
) -> None:
    version, turns = versions["deepfm"][1], CountedTurns()
    user, item = random_pair(with_statistics(), random.Random(5))
    whole = await Explainer(version, user, turns).explain(item)
    of_parts = 3  # bias and first order, pairs, the network
    assert turns.count == 1 + of_parts
    monkeypatch.setattr(explain, "SLICE", 4)
    sliced = await Explainer(version, user, turns).explain(item)
    assert effects_of(sliced) == pytest.approx(effects_of(whole), abs=1e-5)
    assert turns.count == 1 + of_parts + math.ceil((1 + len(whole.effects)) / 4) + of_parts
