"""What crosses are for: a combination of traits that no training row has, ranked better than by first-order weights.

Held out are all ratings of women aged 20 to 30 who like science fiction more than most people do; women of that age and
lovers of science fiction are in the training rows, but no one who is both.
"""

from __future__ import annotations

import importlib.util
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from app.features.encoder import Encoder
from app.models.base import CtrModel
from app.models.serving_form import serving_form
from app.training.architectures import ModelConfig
from app.training.data.catalogue import open_dataset
from app.training.data.dataset import Dataset
from app.training.data.state_files import raw_features
from app.training.evaluation.metrics import evaluate, grouped_auc
from app.training.evaluation.predict import predict
from app.training.loop.trainer import Trainer
from app.training.loop.trainer_config import TrainerConfig
from app.training.preprocessing.encode import encode
from app.training.preprocessing.expand import ExpandedRows, expand
from app.training.preprocessing.preprocessing_fit import PreprocessingFit

VALIDATION_USERS = 120
pytestmark = pytest.mark.timeout(1800)  # two models are trained on 84,000 rows, which takes a minute on a busy machine
SEED = 0


class Trained(NamedTuple):
    data: Dataset
    held_out: Dataset
    held_rows: ExpandedRows
    deepfm: CtrModel
    first_order: CtrModel


def traits_held_out(data: Dataset) -> np.ndarray:
    """Ids of the women aged 20 to 30 whose likes hold at least the median share of science fiction."""
    assert data.user_states is not None
    likes = [
        {pair["item"]: pair["weight"] for pair in pairs or []} for pairs in data.user_states["liked_genres"].to_list()
    ]
    share = np.array([genres.get("Sci-Fi", 0.0) / max(sum(genres.values()), 1.0) for genres in likes])
    age = data.user_states["age"].to_numpy()
    women = (data.user_states["gender"] == "F").to_numpy()
    return data.user_states["id"].to_numpy()[women & (age >= 20) & (age <= 30) & (share >= np.median(share))]


def train_without_them(seed: int) -> Trained:
    data = open_dataset("movielens", None)
    held = np.isin(data.user["user_id"].to_numpy(), traits_held_out(data))
    others = np.unique(data.user["user_id"].to_numpy()[~held])
    # Early stopping watches strangers too, for that is what the held-out users will be.
    strangers = np.random.default_rng(0).choice(others, VALIDATION_USERS, replace=False)
    watched = np.isin(data.user["user_id"].to_numpy(), strangers)
    train, validation, test = (data.take(np.flatnonzero(part)) for part in (~held & ~watched, watched, held))
    encoded = encode(train)
    preprocessing = PreprocessingFit().fit(data.schema, encoded)
    rows = [expand(preprocessing, part) for part in (encoded, encode(validation), encode(test))]
    models = []
    for name in ("deepfm", "lr"):
        model = ModelConfig(name, hidden=(32,), seed=seed).build(preprocessing)
        config = TrainerConfig(seed=seed, batch_size=1024, epochs=5, table_l2=3e-3)
        Trainer(config, model, preprocessing).fit(rows[0], rows[1])
        models.append(model)
    return Trained(data, test, rows[2], *models)


@pytest.fixture(scope="module")
def trained() -> Trained:
    if importlib.util.find_spec("recbole") is None:
        pytest.skip("MovieLens-100K is not installed")
    return train_without_them(SEED)


def ranking(trained: Trained, model: CtrModel) -> tuple[float, float]:
    """AUC over the held-out rows, and AUC within each held-out user (GAUC)."""
    scores = predict(model, trained.held_rows).sigmoid().numpy()
    labels = trained.held_out.labels_N
    users = trained.held_out.user["user_id"].to_numpy()
    return evaluate(labels, scores)["auc"], grouped_auc(users, labels, scores)


@pytest.mark.slow
def test_an_unseen_combination_is_ranked_better_than_by_first_order_weights(trained: Trained) -> None:
    assert len(trained.held_out) > 3000
    auc, gauc = ranking(trained, trained.deepfm)
    first_auc, first_gauc = ranking(trained, trained.first_order)
    assert auc > first_auc + 0.006
    assert gauc > first_gauc + 0.004


def order_for(trained: Trained, model: CtrModel, user: dict[str, Any]) -> np.ndarray:
    """Positions of all films, best first, by the split that serving uses."""
    data = trained.data
    assert data.item_states is not None
    fields = data.schema.side("item")
    films = [raw_features(row, fields) for row in data.item_states.iter_rows(named=True)]
    served = serving_form(model)
    user_slots = Encoder(data.schema, "user").encode(user, "someone new")
    item_slots = Encoder(data.schema, "item").encode_many(films, data.item_states["id"].to_list())
    with torch.inference_mode():
        state = served.encode_user(torch.from_numpy(user_slots.keys)[None], torch.from_numpy(user_slots.values)[None])
        items = served.encode_items(torch.from_numpy(item_slots.keys), torch.from_numpy(item_slots.values))
        return served.score(state[0], items).argsort(descending=True, stable=True).numpy()


@pytest.mark.slow
def test_a_woman_of_25_who_likes_science_fiction_is_shown_more_of_it(trained: Trained) -> None:
    def woman(genre: str) -> dict[str, Any]:
        traits = {"age": 25, "gender": "F", "occupation": "student", "hour": 21, "weekday": 5, "user_rating_count": 60}
        averages = {"user_average": 3.6, "user_like_share": 0.55, "liked_year": 1992}
        return {**traits, **averages, "liked_genres": {genre: 20, "Drama": 10}, "genre_taste": {genre: 0.8}}

    assert trained.data.item_states is not None
    science_fiction = np.array(["Sci-Fi" in genres for genres in trained.data.item_states["genres"].to_list()])
    orders = {
        (name, genre): order_for(trained, model, woman(genre))
        for name, model in (("deepfm", trained.deepfm), ("lr", trained.first_order))
        for genre in ("Sci-Fi", "Romance")
    }
    # Without crosses all users get one and the same order.
    assert orders["lr", "Sci-Fi"].tolist() == orders["lr", "Romance"].tolist()
    mean_position = {key: np.flatnonzero(science_fiction[order]).mean() / len(order) for key, order in orders.items()}
    assert mean_position["deepfm", "Sci-Fi"] < mean_position["deepfm", "Romance"] - 0.04
