"""Measure whether models of rows that say less than the truth still say it: `python -m benchmarks.honest_labels`.

Clicks are drawn from a known probability. Of these, a tenth of the rows without a click is kept, as logs of large sites
are thinned out; a model of what was kept is compared, on all rows, with a model of everything.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from app.features.schema import parse_schema
from app.training.architectures import ModelConfig
from app.training.data.dataset import Dataset
from app.training.data.row_weights import row_weights
from app.training.job import TrainingJob
from app.training.job_config import JobConfig

SCHEMA = parse_schema("""\
fields:
  - {name: user, entity: user, type: categorical, id: true}
  - {name: segment, entity: user, type: categorical}
  - {name: hour, entity: context, type: categorical}
  - {name: item, entity: item, type: categorical, id: true}
  - {name: brand, entity: item, type: categorical}
""")
SEEDS = (0, 1, 2)
KEPT = 0.1


@dataclass(frozen=True)
class Audience:
    """Draws who looks at what, and who clicks; the seed decides what people like."""

    seed: int
    users: int = 400
    items: int = 200
    level: float = -3.9
    """The log odds of a click, all else being average."""

    def rows(self, count: int, seed: int) -> Dataset:
        """Return that many impressions."""
        rng, likes = np.random.default_rng([self.seed, seed]), np.random.default_rng(self.seed)
        user, item, hour = (rng.integers(0, size, count) for size in (self.users, self.items, 24))
        segment, brand = user % 8, item % 10
        logit = self.level + likes.normal(0, 0.4, self.users)[user] + likes.normal(0, 0.7, self.items)[item]
        logit += likes.normal(0, 0.5, (8, 10))[segment, brand] + 0.3 * np.cos(hour * np.pi / 12)
        labels = (rng.random(count) < 1 / (1 + np.exp(-logit))).astype(np.float32)
        return Dataset(
            "made",
            SCHEMA,
            pl.DataFrame({"user": user, "segment": segment, "hour": hour}),
            pl.DataFrame({"item": item, "brand": brand}),
            labels,
            np.arange(count, dtype=np.int64),
            "made",
        )


def thinned(data: Dataset, share: float, seed: int) -> Dataset:
    """Return the rows with a click, and this share of the others at random."""
    kept = (data.labels_N > 0.5) | (np.random.default_rng(seed).random(len(data)) < share)
    return data.take(np.flatnonzero(kept))


def trained(data: Dataset, test: Dataset, model: str, seed: int) -> dict[str, float]:
    """Train a model of some rows as `ctr train --effort quick` does; return its metrics on others."""
    config = JobConfig(model=ModelConfig(model, seed=seed), effort="quick")
    config = replace(config, trainer=replace(config.trainer, seed=seed))
    job = TrainingJob(config)
    searched = job.fit_best(data, test)
    best = searched.best
    return TrainingJob(searched.config).calibrate_and_measure(best.prepared, best.model, best.fitted).metrics["test"]


def compare_thinned(
    audience: Audience, rows: int, test_rows: int, model: str = "deepfm"
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
    return {name: trained(part, test, model, seed) for name, part in named.items()}


def main() -> None:
    """Print the metrics of each seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="impressions to train on, before any are left out")
    parser.add_argument("--users", type=int, default=Audience.users)
    parser.add_argument("--items", type=int, default=Audience.items)
    parser.add_argument("--model", default="deepfm")
    options = parser.parse_args()
    for seed in SEEDS:
        audience = Audience(seed, options.users, options.items)
        for name, metrics in compare_thinned(audience, options.rows, 300_000, options.model).items():
            shown = ", ".join(f"{metric} {metrics[metric]:.5f}" for metric in ("auc", "log_loss", "ece", "calibration"))
            print(f"seed {seed}, {name}: {shown}", flush=True)


if __name__ == "__main__":
    main()
