"""Measures what keeping item states in bfloat16 changes in the scores of a trained model and in their ranking."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from app.models.serving_form import serving_form
from app.registry.artifact.native_scorers import scorers
from app.training.data.catalogue import open_dataset
from app.training.evaluation.metrics import evaluate
from app.training.job import TrainingJob
from app.training.job_config import JobConfig


def auc_change(train: Path, test: Path) -> dict[str, float]:
    """Train on one file with default settings, and score each row of the other as the service does, both ways."""
    job = TrainingJob(JobConfig())
    prepared = job.prepare(open_dataset("sparrow", train), open_dataset("sparrow", test))
    served = serving_form(job.train(prepared).model)
    rows = prepared.encoded["test"]
    scores = {}
    with torch.inference_mode():
        users_UD = served.encode_user(*map(torch.from_numpy, rows.user))
        states_ND = served.encode_items(*map(torch.from_numpy, rows.item))
        for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
            scorer, table_ND = scorers(served)[dtype], states_ND.to(dtype)
            pairs = enumerate(users_UD)
            scores[name] = np.concatenate(
                [scorer.ranked(user_D, table_ND, np.array([row]))[0] for row, user_D in pairs]
            )
    metrics = {
        f"{name} {metric}": evaluate(rows.labels_N, scores_N)[metric]
        for name, scores_N in scores.items()
        for metric in ("auc", "log_loss")
    }
    return metrics | {"largest difference of two scores": float(np.abs(scores["fp32"] - scores["bf16"]).max())}
