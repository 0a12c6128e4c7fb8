"""A loaded version scores as the model that it was written from."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from app.models import MODELS
from app.registry.artifact.load import load
from tests.factories import raw_context, raw_item, raw_user, tiny_model, write_tiny


@pytest.mark.parametrize("architecture", MODELS)
def test_what_is_loaded_scores_as_the_model_did(tmp_path: Path, architecture: str) -> None:
    manifest = write_tiny(tmp_path, seed=3, architecture=architecture)
    loaded = load(tmp_path)
    assert loaded.manifest == msgspec.structs.replace(manifest, checksum=loaded.manifest.checksum)
    assert (loaded.version, loaded.manifest.architecture) == (0, architecture)
    model = tiny_model(3, architecture)
    items = loaded.item_encoder.encode_many([raw_item(n) for n in range(80)], [str(n) for n in range(80)])
    for number in (0, 3, 77):  # one with a missing age, one the training never saw
        user = loaded.user_encoder.encode(raw_user(number) | raw_context(number), str(number))
        scores_N = loaded.score(loaded.encode_user(user), loaded.encode_items(items))
        with torch.no_grad():
            slots = [np.repeat(user.keys[None], 80, 0), np.repeat(user.values[None], 80, 0), *items]
            expected_N = model.probability(model(*(torch.from_numpy(array) for array in slots)))
        assert float((scores_N - expected_N).abs().max()) < 1e-5
        assert float((scores_N - loaded.score_by_forward(user, items)).abs().max()) < 1e-5
        assert float(scores_N.std()) > 0.001, "a test on equal scores would see nothing"
