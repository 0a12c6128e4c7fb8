"""Measure whether models of labels that say less than the truth still say it: `python -m benchmarks.honest_labels`.

`negatives`: clicks are drawn from a known probability, and a tenth of the rows without one is kept, as logs of large
sites are thinned out; a model of what was kept is compared, on all rows, with a model of everything.

`position`: users look at the item in place r of a list with probability 1 / r, and click what they look at and like.
The lists are in an order that has little to do with what is liked. Models of these clicks, with a field of the position
and without, are compared with a model of users who look at everything, by the order in which they put items.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from app.features.schema import FeatureSchema, parse_schema
from app.training.architectures import ModelConfig
from app.training.calibrated_model import calibrate_and_measure
from app.training.data.dataset import Dataset
from app.training.data.row_weights import row_weights
from app.training.job import TrainingJob
from app.training.job_config import Effort, JobConfig
from app.training.job_results import TrainedModel

FIELDS = """\
fields:
  - {name: user, entity: user, type: categorical, id: true}
  - {name: segment, entity: user, type: categorical}
  - {name: hour, entity: context, type: categorical}
  - {name: item, entity: item, type: categorical, id: true}
  - {name: brand, entity: item, type: categorical}
"""
SCHEMA = parse_schema(FIELDS)
WITH_POSITION = parse_schema(FIELDS + "  - {name: position, entity: position, type: categorical, serve_as: 1}\n")
SEEDS = (0, 1, 2)
KEPT = 0.1
PLACES, TOP = 20, 10
Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Audience:
    """Knows who likes what; the seed decides it."""

    seed: int
    users: int = 400
    items: int = 200
    level: float = -3.9
    """The log odds of a click, all else being average."""
    spread: float = 0.7
    """The standard deviation of how much items are liked."""

    def likes(self, user_N: Codes, item_N: Codes, hour_N: Codes) -> Floats:
        """Return the probability that a user clicks an item that he looks at [N]."""
        rng = np.random.default_rng(self.seed)
        logit_N = self.level + rng.normal(0, 0.4, self.users)[user_N] + rng.normal(0, self.spread, self.items)[item_N]
        logit_N += rng.normal(0, 0.5, (8, 10))[user_N % 8, item_N % 10] + 0.3 * np.cos(hour_N * np.pi / 12)
        return np.asarray(1 / (1 + np.exp(-logit_N)))

    def rows(self, count: int, seed: int) -> Dataset:
        """Return that many impressions, of any item each, which are looked at."""
        rng = np.random.default_rng([self.seed, seed])
        user_N, item_N, hour_N = (rng.integers(0, size, count) for size in (self.users, self.items, 24))
        clicked_N = rng.random(count) < self.likes(user_N, item_N, hour_N)
        return dataset(SCHEMA, user_N, item_N, hour_N, clicked_N)


def dataset(
    schema: FeatureSchema,
    user_N: Codes,
    item_N: Codes,
    hour_N: Codes,
    clicked_N: npt.NDArray[np.bool_],
    position_N: Codes | None = None,
) -> Dataset:
    """Return rows without a time."""
    user = pl.DataFrame({"user": user_N, "segment": user_N % 8, "hour": hour_N})
    if position_N is not None:
        user = user.with_columns(position=pl.Series(position_N))
    item = pl.DataFrame({"item": item_N, "brand": item_N % 10})
    return Dataset("made", schema, user, item, clicked_N.astype(np.float32), None, "made")


def thinned(data: Dataset, share: float, seed: int) -> Dataset:
    """Return the rows with a click, and this share of the others at random."""
    kept = (data.labels_N > 0.5) | (np.random.default_rng(seed).random(len(data)) < share)
    return data.take(np.flatnonzero(kept))


def trained(data: Dataset, test: Dataset, model: str, seed: int, effort: Effort) -> TrainedModel:
    """Train a model of some rows as `ctr train --no-refit` does with this effort; it is measured on others."""
    config = JobConfig(model=ModelConfig(model, seed=seed), effort=effort)
    config = replace(config, trainer=replace(config.trainer, seed=seed))
    searched = TrainingJob(config).fit_best(data, test)
    best = searched.best
    # Not averaged with logistic regression: of the compared sets some have few enough rows for that and others not.
    return calibrate_and_measure(replace(searched.config, linear_share=0.0), best.prepared, best.model, best.fitted)


def compare_thinned(
    audience: Audience, rows: int, test_rows: int, model: str = "deepfm", effort: Effort = "quick"
) -> dict[str, dict[str, float]]:
    """Return metrics on all rows of models of all rows, of a tenth of the negatives, and of these as if they were all.

    Args:
        rows: number of impressions to train on, before any are left out.
    """
    seed = audience.seed
    data, test = audience.rows(rows, 1), audience.rows(test_rows, 2)
    kept = thinned(data, KEPT, seed)
    told = replace(kept, weights=row_weights(kept.labels_N, None, KEPT, "kept"))
    named = {"all rows": data, "a tenth of the negatives, told": told, "a tenth of the negatives": kept}
    return {name: trained(part, test, model, seed, effort).metrics["test"] for name, part in named.items()}


class Lists(NamedTuple):
    """Holds lists as they were shown, row by row."""

    user_N: Codes
    item_N: Codes
    hour_N: Codes
    position_N: Codes
    likes_N: Floats


def shown_lists(audience: Audience, lists: int, seed: int) -> Lists:
    """Return lists of `PLACES` items: those of a random score of each item come first, more or less."""
    rng = np.random.default_rng([audience.seed, seed])
    favoured = np.random.default_rng([audience.seed, 99]).normal(0, 1, audience.items)
    candidates = np.argsort(rng.random((lists, audience.items)), 1)[:, :PLACES]
    order = np.argsort(-(favoured[candidates] + rng.normal(0, 1, candidates.shape)), 1)
    item_N = np.take_along_axis(candidates, order, 1).ravel()
    user_N, hour_N = (np.repeat(rng.integers(0, size, lists), PLACES) for size in (audience.users, 24))
    position_N = np.tile(np.arange(1, PLACES + 1), lists)
    return Lists(user_N, item_N, hour_N, position_N, audience.likes(user_N, item_N, hour_N))


def mean_ndcg(scores_N: Floats, likes_N: Floats, items: int) -> float:
    """Return the mean NDCG@10 of lists of so many items each, whose gains are what is liked."""
    likes, scores = likes_N.reshape(-1, items), scores_N.reshape(-1, items)
    discount = 1 / np.log2(np.arange(2, TOP + 2))
    ranked = np.take_along_axis(likes, np.argsort(-scores, 1, kind="stable"), 1)[:, :TOP] @ discount
    best = -np.sort(-likes, 1)[:, :TOP] @ discount
    return float((ranked / best).mean())


def compare_positions(
    audience: Audience, lists: int, users: int, model: str = "deepfm", effort: Effort = "quick"
) -> dict[str, float]:
    """Return NDCG@10 against the truth of models of unbiased clicks, and of those that depend on places.

    Args:
        lists: number of lists to train on.
        users: of so many the whole catalogue is ranked.
    """
    shown = shown_lists(audience, lists, 1)
    rng = np.random.default_rng([audience.seed, 3])
    liked_N = rng.random(len(shown.user_N)) < shown.likes_N
    seen_N = liked_N & (rng.random(len(liked_N)) < 1 / shown.position_N)
    user_N, hour_N = (np.repeat(rng.integers(0, size, users), audience.items) for size in (audience.users, 24))
    item_N = np.tile(np.arange(audience.items), users)
    likes_N = audience.likes(user_N, item_N, hour_N)
    drawn_N, first_N = rng.random(len(likes_N)) < likes_N, np.ones(len(likes_N), np.int64)
    ranked = {
        "unbiased clicks": (SCHEMA, liked_N),
        "clicks by place, with the position": (WITH_POSITION, seen_N),
        "clicks by place": (SCHEMA, seen_N),
    }
    results = {"any order": mean_ndcg(rng.random(len(likes_N)), likes_N, audience.items)}
    for name, (schema, clicked_N) in ranked.items():
        data = dataset(schema, *shown[:3], clicked_N, shown.position_N)
        test = dataset(schema, user_N, item_N, hour_N, drawn_N, first_N)  # as ranking holds it
        result = trained(data, test, model, audience.seed, effort)
        results[name] = mean_ndcg(result.probabilities("test").astype(np.float64), likes_N, audience.items)
    return results


def main() -> None:
    """Print the figures of each seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["negatives", "position"])
    parser.add_argument("--rows", type=int, default=1_000_000, help="impressions to train on, before any are left out")
    parser.add_argument("--users", type=int, default=Audience.users)
    parser.add_argument("--items", type=int, default=Audience.items)
    parser.add_argument("--model", default="deepfm")
    parser.add_argument("--effort", choices=["quick", "default"], default="default")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for seed in SEEDS:
        audience = Audience(seed, options.users, options.items)
        if options.what == "negatives":
            for name, metrics in compare_thinned(
                audience, options.rows, 300_000, options.model, options.effort
            ).items():
                shown = ", ".join(f"{one} {metrics[one]:.5f}" for one in ("auc", "log_loss", "ece", "calibration"))
                print(f"seed {seed}, {name}: {shown}", flush=True)
        else:
            audience, lists = replace(audience, level=-2.2, spread=1.0), options.rows // PLACES
            for name, ndcg in compare_positions(audience, lists, 500, options.model, options.effort).items():
                print(f"seed {seed}, {name}: NDCG@{TOP} {ndcg:.4f}", flush=True)


if __name__ == "__main__":
    main()
