"""A search for better options on the validation part: Optuna's TPE, with runs that fall behind given up early.

The test part is not looked at: what the search finds is measured once, by the command that it prints.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.errors import ConfigError, DataError
from app.training.job_config import JobConfig
from app.training.job_results import PreparedData
from app.training.loop.epochs import ProgressUpdate
from app.training.loop.trainer import Trainer

if TYPE_CHECKING:
    import optuna

MISSING = "ctr tune needs `pip install ctr-serving[tune]`"
FIRST_TRIALS = 5
"""At random, before the search learns from them and before any is given up."""
FIRST_EPOCHS = 2
"""Every trial has so many before it may be given up."""
HIDDEN = ("64", "128,64", "256,128", "200,80", "256,128,64", "400,400")

Options = dict[str, Any]
MakeConfig = Callable[..., JobConfig]
"""`app.commands.options.job_config` with the model, seed and split filled in: options to a configuration."""


@dataclass(frozen=True)
class Trial:
    number: int
    options: Options
    loss: float | None
    """Validation log loss; of a trial that was given up, the last one seen."""
    state: str
    """complete, pruned or fail."""
    seconds: float


@dataclass(frozen=True)
class Search:
    """A study in an SQLite file: run it again to go on where it ended."""

    study: optuna.Study

    @classmethod
    def open(cls, file: Path, name: str, about: Mapping[str, str], seed: int) -> Search:
        """
        Args:
            about: what the trials have in common; a study of something else is refused.

        Raises:
            ConfigError: optuna is not installed, or the study is of other data or another model.
        """
        try:
            import optuna
        except ImportError as error:
            raise ConfigError(MISSING) from error
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            storage = optuna.storages.RDBStorage(f"sqlite:///{file.absolute()}")
            study = optuna.create_study(study_name=name, storage=storage, direction="minimize", load_if_exists=True)
        except Exception as error:  # of Optuna, SQLAlchemy or the file system
            raise ConfigError(f"{file} cannot be used: {str(error).splitlines()[0]}") from error
        differs = [f"{key} was {study.user_attrs[key]}, is {value}" for key, value in about.items()
                   if study.user_attrs.get(key, value) != value]  # fmt: skip
        if differs:
            raise ConfigError(f"{file} is a search of something else ({'; '.join(differs)}); name another with --study")
        for key, value in about.items():
            study.set_user_attr(key, value)
        # Each resumption draws other numbers, or it would try the first trials again.
        study.sampler = optuna.samplers.TPESampler(seed=seed + len(study.trials), n_startup_trials=FIRST_TRIALS)
        study.pruner = optuna.pruners.MedianPruner(FIRST_TRIALS, FIRST_EPOCHS)
        return cls(study)

    @property
    def trials(self) -> list[Trial]:
        """Those that came to an end, in order."""
        found = []
        for trial in self.study.trials:
            if not trial.state.is_finished():
                continue
            last = max(trial.intermediate_values.items(), default=(0, None))[1]
            loss = trial.value if trial.value is not None else last
            seconds = trial.duration.total_seconds() if trial.duration else math.nan
            found.append(Trial(trial.number, _said(trial.params), loss, trial.state.name.lower(), seconds))
        return found

    @property
    def best(self) -> Trial | None:
        complete = [trial for trial in self.trials if trial.state == "complete" and trial.loss is not None]
        return min(complete, key=lambda trial: trial.loss or math.inf, default=None)

    def run(
        self,
        prepared: PreparedData,
        make: MakeConfig,
        defaults: Options,
        trials: int,
        *,
        timeout: float | None = None,
        report: Callable[[ProgressUpdate], None] | None = None,
        done: Callable[[Trial], None] = lambda _: None,
    ) -> None:
        """Until the study has this many trials, or the time is up. The defaults are the first of them.

        Args:
            defaults: of the options that are searched; those a model lacks are absent, and are not searched.
            timeout: seconds; the trial at work then is finished.
            report: told of the steps of each trial.
            done: told of each trial that came to an end.
        """
        import optuna

        if not self.study.trials:
            self.study.enqueue_trial(defaults)
        missing = trials - len(self.trials)
        if missing <= 0:
            return

        def objective(trial: optuna.Trial) -> float:
            config = make(**_said(_asked(trial, defaults)))
            model = config.model.build(prepared.preprocessing)
            trainer = Trainer(config.trainer, model, prepared.preprocessing)
            best = math.inf

            def watched(step: ProgressUpdate) -> None:
                nonlocal best
                if report:
                    report(step)
                if step.validation_loss is None or not math.isfinite(step.validation_loss):
                    return  # the trainer ends a run that is not finite
                best = min(best, step.validation_loss)
                trial.report(best, step.epoch)
                if trial.should_prune():
                    raise optuna.TrialPruned

            trainer.fit(prepared.rows["train"], prepared.rows["validation"], watched)
            return best

        self.study.optimize(
            objective,
            n_trials=missing,
            timeout=timeout,
            catch=(DataError,),  # a learning rate that diverges is an answer too
            callbacks=[lambda study, trial: done(self.trials[-1])],
        )


def searched(model: str) -> Options:
    """The options that are searched for a model, with the defaults they begin with."""
    from app.models import MODELS
    from app.training.architectures import ModelConfig
    from app.training.loop.trainer_config import TrainerConfig

    own, trainer = MODELS[model].options(), TrainerConfig()
    hidden = ",".join(str(width) for width in own["hidden"]) if "hidden" in own else None
    return {
        **({"dim": own["dim"]} if "dim" in own else {}),
        **({"hidden": hidden} if hidden else {}),
        **({"dropout": own["dropout"]} if "dropout" in own else {}),
        "batch_size": trainer.batch_size,
        "learning_rate": trainer.learning_rate,
        "l2": ModelConfig(model).table_l2,
        "id_dropout": trainer.id_dropout,
    }


def _asked(trial: optuna.Trial, defaults: Options) -> Options:
    """What the trial is to try of each option."""
    ask: dict[str, Callable[[], Any]] = {
        "dim": lambda: trial.suggest_categorical("dim", _with(defaults["dim"], (4, 8, 16, 32))),
        "hidden": lambda: trial.suggest_categorical("hidden", _with(defaults["hidden"], HIDDEN)),
        "dropout": lambda: trial.suggest_float("dropout", 0.0, 0.6),
        "batch_size": lambda: trial.suggest_categorical("batch_size", _with(defaults["batch_size"], (256, 1024, 4096))),
        "learning_rate": lambda: trial.suggest_float("learning_rate", 2e-4, 2e-2, log=True),
        "l2": lambda: trial.suggest_float("l2", 1e-5, 1e-1, log=True),
        "id_dropout": lambda: trial.suggest_float("id_dropout", 0.0, 0.6),
    }
    return {option: ask[option]() for option in defaults}


def _with(default: Any, others: tuple[Any, ...]) -> list[Any]:
    return sorted({default, *others}, key=lambda value: (len(str(value)), str(value)))


def _said(options: Mapping[str, Any]) -> Options:
    """As a command line says them: four digits decide nothing, sixteen cannot be read."""
    return {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in options.items()}
