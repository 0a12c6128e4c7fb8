"""The untrained model: the same everywhere for the same seed, spread out, with a vocabulary that knows every value."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from app.features.encoder import Encoder
from app.features.fields import Side
from app.features.loading.synthetic import SyntheticCatalogue
from app.publishing.synthetic_model import build_model

SMALL = SyntheticCatalogue(users=30, items=700, user_fields=3, item_fields=4, cardinality=50, seed=7)


def logits(catalogue: SyntheticCatalogue, dim: int, hidden: tuple[int, ...], pairs: int = 4000) -> torch.Tensor:
    slots = []
    rng = np.random.default_rng(0)
    sides: tuple[Side, Side] = ("user", "item")
    for side in sides:
        raws = catalogue.raw(side, 0, min(catalogue.count(side), 500))
        encoded = Encoder(catalogue.schema, side).encode_many(raws, [None] * len(raws))
        chosen = rng.integers(0, len(raws), pairs)
        slots += [torch.from_numpy(encoded.keys[chosen]), torch.from_numpy(encoded.values[chosen])]
    with torch.inference_mode():
        found: torch.Tensor = build_model(catalogue, dim, hidden)(*slots)
        return found


def test_same_seed_same_features_and_weights() -> None:
    """The sums are pinned, so that a release or a machine that draws other numbers is noticed."""
    model = build_model(SMALL, dim=4, hidden=(8, 4))
    digest = hashlib.sha256()
    for name, tensor in [*sorted(model.named_parameters()), ("vocabulary_V", model.vocabulary_V)]:
        digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
    digest.update(
        SMALL.values("user", 0, 30).astype("<i8").tobytes() + SMALL.values("item", 0, 700).astype("<i8").tobytes()
    )
    assert digest.hexdigest()[:16] == "fe74ff869ad00658"


def test_other_seed_other_weights_and_features() -> None:
    other = SyntheticCatalogue(users=30, items=700, user_fields=3, item_fields=4, cardinality=50, seed=8)
    assert not np.array_equal(SMALL.values("item", 0, 700), other.values("item", 0, 700))
    table = build_model(SMALL, 4, (8,)).table_RE
    assert not torch.equal(table, build_model(other, 4, (8,)).table_RE)


@pytest.mark.parametrize(("dim", "hidden"), [(16, (256, 128, 64)), (8, (64,)), (16, (400, 400, 400))])
def test_probabilities_spread(dim: int, hidden: tuple[int, ...]) -> None:
    probability = torch.sigmoid(logits(SyntheticCatalogue(cardinality=100), dim, hidden))
    low, high = torch.quantile(probability, torch.tensor([0.02, 0.98])).tolist()
    assert low < 0.06
    assert high > 0.94
    assert 0.35 < float(probability.mean()) < 0.65


def test_the_vocabulary_knows_every_value() -> None:
    model = build_model(SMALL, 4, (8,))
    raws = SMALL.raw("item", 0, 700)
    slots = Encoder(SMALL.schema, "item").encode_many(raws, [None] * 700)
    rows, _ = model.item.expand(model.vocabulary_V, torch.from_numpy(slots.keys), torch.from_numpy(slots.values))
    assert int(rows.min()) >= model.item.first_vocabulary_row
    assert len(model.vocabulary_V) == 50 * 7
