"""The models by the name that `--model` and the manifest give them."""

from app.models.contract import CtrModel
from app.models.deepfm import DeepFM
from app.models.lr import LogisticRegression

MODELS: dict[str, type[CtrModel]] = {model.name: model for model in (DeepFM, LogisticRegression)}
