"""The models by the name that `--model` and the manifest give them: ours in `MODELS`, and classes of the user's own."""

from typing import Any

from app.errors import ConfigError
from app.models.base import CtrModel
from app.models.dcn import DCN
from app.models.deepfm import DeepFM
from app.models.deepfm_sparrow import DeepFMSparrow
from app.models.deepfm_sparrow_v2 import DeepFMSparrowV2
from app.models.deepfm_variants import DeepFMVariant
from app.models.embedding_mlp import EmbeddingMlp
from app.models.finalmlp import FinalMLP
from app.models.fm import FM
from app.models.fusion import Fusion
from app.models.hofm import HOFM
from app.models.lr import LogisticRegression
from app.models.neural_cf import NeuralCF, NeuralCFTowers
from app.models.nfm import NFM
from app.models.preprocessing import Preprocessing
from app.models.user_class import import_user_class, is_user_class
from app.models.wide_deep import WideDeep

MODELS: dict[str, type[CtrModel]] = {
    model.name: model
    for model in (
        DeepFM,
        LogisticRegression,
        FM,
        HOFM,
        EmbeddingMlp,
        WideDeep,
        NeuralCF,
        NeuralCFTowers,
        DeepFMSparrow,
        DeepFMSparrowV2,
        NFM,
        DCN,
        FinalMLP,
        Fusion,
    )
}
VARIANTS: dict[str, type[CtrModel]] = {DeepFMVariant.name: DeepFMVariant}
"""Classes that take further options, by the name of the model that has them when one of these is set."""


def model_class(name: str) -> type[CtrModel]:
    """Return the class of a model by its name; one of the user's own, `package.module:Class`, is imported.

    Raises:
        ConfigError: no model has this name, or the user's class cannot be had.
    """
    if is_user_class(name):
        return import_user_class(name)
    if name not in MODELS:
        own = "or a class of your own as package.module:Class"
        raise ConfigError(f"--model {name}: unknown; choose one of {', '.join(MODELS)}, {own}")
    return MODELS[name]


def options_of(name: str) -> dict[str, Any]:
    """Return all options that `build` takes for a model, by name, with their defaults. Raises ConfigError."""
    return VARIANTS.get(name, model_class(name)).options()


def build(name: str, preprocessing: Preprocessing, **options: Any) -> CtrModel:
    """Build a model with fresh weights.

    Raises:
        ConfigError: no model has this name, or it does not take one of these options.
    """
    model, defaults = model_class(name), options_of(name)
    unknown = [option for option in options if option not in defaults]
    if unknown:
        raise ConfigError(f"{name} has no {', '.join(unknown)}; it takes {', '.join(defaults) or 'no options'}")
    plain = model.options()
    if all(option in plain or value == defaults[option] for option, value in options.items()):
        return model(preprocessing, **{option: value for option, value in options.items() if option in plain})
    return VARIANTS[name](preprocessing, **options)
