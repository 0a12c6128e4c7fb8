"""A warm start begins as the very function that is live, for every architecture, and forgets nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from app.errors import ArtifactError
from app.features.encoder import Encoder
from app.features.fields import SIDES
from app.models import MODELS, build
from app.models.base import CtrModel
from app.models.preprocessing import NumericStatistics, Preprocessing
from app.registry.artifact.artifact import Artifact
from app.registry.artifact.export import write
from app.registry.artifact.load import load
from app.training.evaluation.predict import predict
from app.training.loop.trainer import Trainer
from app.training.loop.trainer_config import TrainerConfig
from app.training.preprocessing.encode import EncodedRows
from app.training.preprocessing.expand import ExpandedRows, expand
from app.training.warm_start import (
    ContinuedPreprocessingFit,
    join_preprocessing,
    live_preprocessing,
    restore_unused_rows,
    warm_start,
)
from tests.factories import (
    fitted,
    golden,
    raw_context,
    raw_item,
    raw_user,
    small_schema,
    tiny_model,
    with_statistics,
    write_tiny,
)

MORE_USERS, MORE_ITEMS = 70, 90


def encoded(users: range, items: range, rows: int = 400) -> EncodedRows:
    """Pairs of these users and items; the first 40 users and 60 items are those the live version knows."""
    schema = small_schema()
    pairs = [(users[n % len(users)], items[(7 * n) % len(items)]) for n in range(rows)]
    user = Encoder(schema, "user").encode_many(
        [raw_user(u) | raw_context(u) for u, _ in pairs], [str(u) for u, _ in pairs]
    )
    item = Encoder(schema, "item").encode_many([raw_item(i) for _, i in pairs], [str(i) for _, i in pairs])
    labels_N = np.random.default_rng(0).integers(0, 2, rows).astype(np.float32)
    return EncodedRows(user, item, labels_N, {})


def live_version(folder: Path, architecture: str = "deepfm") -> Artifact:
    write_tiny(folder, architecture=architecture)
    return load(folder)


def warm(live: Artifact, architecture: str = "deepfm") -> tuple[CtrModel, Preprocessing, ExpandedRows]:
    preprocessing = join_preprocessing(live_preprocessing(live), fitted(users=MORE_USERS, items=MORE_ITEMS))
    torch.manual_seed(1)
    model = build(architecture, preprocessing)
    train = expand(preprocessing, encoded(range(MORE_USERS), range(MORE_ITEMS)))
    warm_start(model, preprocessing, live, train)
    return model, preprocessing, train


def test_what_the_live_version_learned_is_read_back(tmp_path: Path) -> None:
    known, result = fitted(), live_preprocessing(live_version(tmp_path))
    assert torch.equal(result.vocabulary_V, known.vocabulary_V)
    assert result.numerics.keys() == known.numerics.keys()
    for name, statistics in known.numerics.items():
        assert result.numerics[name].mean == pytest.approx(statistics.mean, rel=1e-6)
        assert result.numerics[name].deviation == pytest.approx(statistics.deviation, rel=1e-6)
        assert result.numerics[name].borders == pytest.approx(statistics.borders)


@pytest.mark.parametrize("architecture", MODELS)
def test_it_begins_as_the_function_that_is_live(tmp_path: Path, architecture: str) -> None:
    live = live_version(tmp_path, architecture)
    model, preprocessing, _ = warm(live, architecture)
    assert len(preprocessing.vocabulary_V) > len(live.program.vocabulary_V)
    old = encoded(range(40), range(60), 300)
    wanted_N = live.program(*(torch.from_numpy(part) for part in (*old.user, *old.item)))
    assert wanted_N.std() > 0.05
    torch.testing.assert_close(predict(model, expand(preprocessing, old)), wanted_N, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("architecture", ["deepfm", "wide_deep"])
def test_target_statistics_are_read_back_and_their_numbers_keep_their_weights(
    tmp_path: Path, architecture: str
) -> None:
    preprocessing = with_statistics()
    write(tmp_path, tiny_model(3, architecture, preprocessing), small_schema(), name="tiny", golden=golden())
    live = load(tmp_path)
    known = live_preprocessing(live)
    for scope in ("user", "item", "across") if architecture == "wide_deep" else SIDES:
        read, learned = known.target_statistics(scope), preprocessing.target_statistics(scope)
        assert read.pairs == learned.pairs
        assert torch.equal(read.keys_V, learned.keys_V)
        assert torch.equal(read.values_V2, learned.values_V2)
        assert torch.equal(read.unseen_P, learned.unseen_P)
    newer = encoded(range(MORE_USERS), range(MORE_ITEMS))
    fit = ContinuedPreprocessingFit(1, "pairs", live=known)
    joined = fit.fit(small_schema(), newer)
    extended, parts = fit.extend(joined, {"train": expand(joined, newer)}, across=True, seed=0)
    assert extended.vectors.keys() == preprocessing.vectors.keys()
    model = build(architecture, extended)
    start = warm_start(model, extended, live, parts["train"])
    for side in SIDES:
        rows, live_rows = list(extended.statistic_rows(side)), list(known.statistic_rows(side))
        assert torch.equal(model.table_RE[rows], live.program.table_RE[live_rows])
        assert start.is_live_R[rows].all()


def test_training_mode_begins_there_too(tmp_path: Path) -> None:
    """Norms of batches move a score a little; were they not prepared it would not be the same function at all."""
    live = live_version(tmp_path)
    model, preprocessing, train = warm(live)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    plain_N = predict(model, train)
    model.train()
    with torch.no_grad():
        batch_N = model.logits(train.rows_NT, train.x_NT, model.fields(train.rows_NT, train.x_NT))
    torch.testing.assert_close(batch_N, plain_N, atol=1e-3, rtol=1e-3)
    assert preprocessing.rows == model.table_RE.shape[0]


def test_old_keys_keep_their_rows_and_new_ones_have_fresh_ones(tmp_path: Path) -> None:
    live = live_version(tmp_path)
    model, preprocessing, _ = warm(live)
    known_V = live.program.vocabulary_V
    place_V = torch.searchsorted(preprocessing.vocabulary_V, known_V) + preprocessing.oov_rows
    table_RE = model.table_RE.detach()
    assert torch.equal(table_RE[place_V], live.program.table_RE[preprocessing.oov_rows :][: len(known_V)])
    assert torch.equal(table_RE[: preprocessing.oov_rows], live.program.table_RE[: preprocessing.oov_rows])
    fresh_R = torch.ones(len(table_RE), dtype=torch.bool)
    fresh_R[place_V] = fresh_R[: preprocessing.oov_rows] = False
    fresh_R[preprocessing.bucket_row("age") :] = False
    assert 0 < table_RE[fresh_R][:, 1:].abs().mean() < 0.02, "0.01 is the deviation of fresh weights, 0.3 of the live"
    assert not table_RE[fresh_R][:, 0].any()


def test_numbers_keep_the_live_statistics_unless_there_were_none(tmp_path: Path) -> None:
    known = live_preprocessing(live_version(tmp_path))
    unseen = replace(known, numerics=known.numerics | {"age": NumericStatistics()})
    new = fitted(users=MORE_USERS, items=MORE_ITEMS)
    result = join_preprocessing(unseen, new)
    assert result.numerics["age"] == new.numerics["age"]
    assert result.numerics["year"] == known.numerics["year"] != new.numerics["year"]


def test_keys_without_a_row_are_as_they_were_after_training(tmp_path: Path) -> None:
    live = live_version(tmp_path)
    preprocessing = join_preprocessing(live_preprocessing(live), fitted(users=MORE_USERS, items=MORE_ITEMS))
    model = build("deepfm", preprocessing)
    train = expand(preprocessing, encoded(range(20, MORE_USERS), range(MORE_ITEMS)))
    start = warm_start(model, preprocessing, live, train)
    Trainer(TrainerConfig(epochs=1, batch_size=64), model, preprocessing).fit(train, train, warm=True)
    absent = restore_unused_rows(model, preprocessing, start, train)
    seen_R = torch.zeros(preprocessing.rows, dtype=torch.bool)
    seen_R[train.rows_NT.flatten()] = True
    moved_R = (model.table_RE.detach() != start.table_RE).any(1)
    assert absent >= 20, "the ids of users 0 to 19 at the least"
    assert not moved_R[start.is_live_R & ~seen_R][preprocessing.oov_rows :].any()
    assert moved_R[seen_R].float().mean() > 0.9


def test_buckets_that_no_row_looks_up_are_as_they_were_too(tmp_path: Path) -> None:
    live = live_version(tmp_path, "wide_deep")
    preprocessing = join_preprocessing(live_preprocessing(live), fitted(users=MORE_USERS, items=MORE_ITEMS))
    model = build("wide_deep", preprocessing)
    train = expand(preprocessing, encoded(range(20, MORE_USERS), range(MORE_ITEMS)))
    start = warm_start(model, preprocessing, live, train)
    table_C1 = model.get_parameter("cross_table_C1")
    assert torch.equal(table_C1, live.program.cross_table_C1)
    Trainer(TrainerConfig(epochs=1, batch_size=64), model, preprocessing).fit(train, train, warm=True)
    decayed = float((table_C1 != live.program.cross_table_C1).float().mean())
    restore_unused_rows(model, preprocessing, start, train)
    moved_C = (table_C1 != live.program.cross_table_C1).squeeze(1)
    assert decayed > 0.9, "or there was nothing to restore"
    assert 0.001 < float(moved_C.float().mean()) < 0.2, "only what 400 rows look up has learned"


def test_a_trainer_told_so_keeps_the_bias_it_is_given(tmp_path: Path) -> None:
    model, preprocessing, train = warm(live_version(tmp_path))
    with torch.no_grad():
        model.bias.fill_(5.0)
    Trainer(TrainerConfig(epochs=1, batch_size=400, averaging=0.0), model, preprocessing).fit(train, train, warm=True)
    assert float(model.bias.detach()) == pytest.approx(5.0, abs=0.01)


def test_another_architecture_is_refused_with_what_to_do(tmp_path: Path) -> None:
    live = live_version(tmp_path)
    preprocessing = join_preprocessing(live_preprocessing(live), fitted())
    train = expand(preprocessing, encoded(range(40), range(60)))
    with pytest.raises(ArtifactError, match=r"table_RE .* use --fresh"):
        warm_start(build("deepfm", preprocessing, dim=3), preprocessing, live, train)
    with pytest.raises(ArtifactError, match=r"would have to be .* use --fresh"):
        warm_start(build("dcn", preprocessing), preprocessing, live, train)
