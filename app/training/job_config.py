"""Configure a training job."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from app.models import model_class
from app.models.preprocessing import Preprocessing
from app.training.architectures import ModelConfig
from app.training.data.split import SplitConfig
from app.training.evaluation.calibration import Method
from app.training.loop.trainer_config import TrainerConfig
from app.training.preprocessing.expand import ExpandedRows
from app.training.preprocessing.preprocessing_fit import PreprocessingFit

Effort = Literal["quick", "default", "high"]


@dataclass(frozen=True)
class JobConfig:
    """Holds every choice of a training job; the manifest of its version keeps it."""

    model: ModelConfig = field(default_factory=ModelConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    preparation: PreprocessingFit = field(default_factory=PreprocessingFit)
    calibration: Method = "auto"
    refit: bool = True
    """Whether the version that is written is trained again on all rows; metrics stay those of the held-out model."""
    linear_share: float | None = 0.0
    """Share of logistic regression in the average that is served (`app.training.linear_average`); None chooses it."""
    effort: Effort | None = None
    """How much is done to adapt the options to the data (`app.training.recipe`); None trains with them as they are."""
    given: tuple[str, ...] = ()
    """Names of the fields of `trainer`, `model` and `preparation` that the user chose, which are not adapted."""

    def as_document(self) -> dict[str, Any]:
        """Return the choices as the manifest keeps them: without options of the user's class where there are none."""
        document = asdict(self)
        if not self.model.own:
            del document["model"]["own"]
        return document

    def extend(
        self, preprocessing: Preprocessing, rows: dict[str, ExpandedRows], like: Preprocessing | None = None
    ) -> tuple[Preprocessing, dict[str, ExpandedRows]]:
        """Learn the target statistics that are wanted and the model reads, and add their numbers to the rows.

        Args:
            rows: rows by part; the statistics are learned on the part `train`.
            like: preprocessing whose statistics to learn, of these rows; None chooses them.
        """
        across = model_class(self.model.name).reads_across
        return self.preparation.extend(preprocessing, rows, across=across, seed=self.trainer.seed, like=like)
