"""Search for better options on the validation part by Optuna's TPE, and prune trials that fall behind.

The search never reads the test part: the command that it prints at the end measures what it found, once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.errors import ConfigError, DataError
from app.models import model_class
from app.training.architectures import ModelConfig
from app.training.job_config import JobConfig
from app.training.job_results import PreparedData
from app.training.loop.epochs import ProgressUpdate
from app.training.loop.trainer import Trainer
from app.training.loop.trainer_config import TrainerConfig

if TYPE_CHECKING:
    import optuna

MISSING = "ctr tune needs `pip install ctr-serving[tune]`"
FIRST_TRIALS = 5
"""Number of random trials that the search learns from first; none is pruned before they have ended."""
FIRST_EPOCHS = 2
"""Number of epochs that every trial trains before it may be pruned."""
HIDDEN = ("64", "128,64", "256,128", "200,80", "256,128,64", "400,400")

Options = dict[str, Any]
MakeConfig = Callable[..., JobConfig]
"""Makes a job's configuration of options: `app.commands.options.job_config` with model, seed and split filled in."""


@dataclass(frozen=True)
class Trial:
    """Holds the result of a trial that has ended."""

    number: int
    options: Options
    loss: float | None
    """Validation log loss; of a pruned trial, the last one that it reported."""
    state: str
    """`complete`, `pruned` or `fail`."""
    seconds: float


@dataclass(frozen=True)
class Search:
    """Runs an Optuna study in an SQLite file, which a later search continues."""

    study: optuna.Study

    @classmethod
    def open(cls, file: Path, name: str, identity: Mapping[str, str], seed: int) -> Search:
        """Open a study, or create it.

        Args:
            identity: what all trials have in common; a study with another identity is refused.

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
        differences = [f"{key} was {study.user_attrs[key]}, is {value}" for key, value in identity.items()
                   if study.user_attrs.get(key, value) != value]  # fmt: skip
        if differences:
            raise ConfigError(
                f"{file} is a search of something else ({'; '.join(differences)}); name another with --study"
            )
        for key, value in identity.items():
            study.set_user_attr(key, value)
        # Each resumption draws other numbers, or it would try the first trials again.
        study.sampler = optuna.samplers.TPESampler(seed=seed + len(study.trials), n_startup_trials=FIRST_TRIALS)
        study.pruner = optuna.pruners.MedianPruner(FIRST_TRIALS, FIRST_EPOCHS)
        return cls(study)

    @property
    def trials(self) -> list[Trial]:
        """Return the trials that have ended, in order."""
        ended = []
        for trial in self.study.trials:
            if not trial.state.is_finished():
                continue
            last = max(trial.intermediate_values.items(), default=(0, None))[1]
            loss = trial.value if trial.value is not None else last
            seconds = trial.duration.total_seconds() if trial.duration else math.nan
            ended.append(Trial(trial.number, _rounded(trial.params), loss, trial.state.name.lower(), seconds))
        return ended

    @property
    def best(self) -> Trial | None:
        """Return the complete trial with the lowest loss."""
        complete = [trial for trial in self.trials if trial.state == "complete" and trial.loss is not None]
        return min(complete, key=lambda trial: trial.loss or math.inf, default=None)

    def run(
        self,
        prepared: PreparedData,
        make_config: MakeConfig,
        defaults: Options,
        trial_count: int,
        *,
        timeout: float | None = None,
        on_progress: Callable[[ProgressUpdate], None] | None = None,
        on_trial: Callable[[Trial], None] = lambda trial: None,
    ) -> None:
        """Run trials until the study has `trial_count` or the time is up. The first trial takes the defaults.

        Args:
            make_config: makes a job's configuration of a trial's options.
            defaults: the options to search, and their defaults (`search_space`).
            timeout: seconds after which no trial is started.
            on_progress: called as each trial trains.
            on_trial: called with each trial that has ended.
        """
        import optuna

        if not self.study.trials:
            self.study.enqueue_trial(defaults)
        missing = trial_count - len(self.trials)
        if missing <= 0:
            return

        def objective(trial: optuna.Trial) -> float:
            config = make_config(**_rounded(_suggest(trial, defaults)))
            model = config.model.build(prepared.preprocessing)
            trainer = Trainer(config.trainer, model, prepared.preprocessing)
            best = math.inf

            def prune_or_continue(update: ProgressUpdate) -> None:
                nonlocal best
                if on_progress:
                    on_progress(update)
                if update.validation_loss is None or not math.isfinite(update.validation_loss):
                    return  # the trainer ends a run that is not finite
                best = min(best, update.validation_loss)
                trial.report(best, update.epoch)
                if trial.should_prune():
                    raise optuna.TrialPruned

            trainer.fit(prepared.rows["train"], prepared.rows["validation"], prune_or_continue)
            return best

        self.study.optimize(
            objective,
            n_trials=missing,
            timeout=timeout,
            catch=(DataError,),  # a learning rate that diverges is an answer too
            callbacks=[lambda study, trial: on_trial(self.trials[-1])],
        )


def search_space(model: str) -> Options:
    """Return the options to search for a model, with their defaults; options that the model lacks are absent."""
    model_options, trainer = model_class(model).options(), TrainerConfig()
    hidden = ",".join(str(width) for width in model_options["hidden"]) if "hidden" in model_options else None
    return {
        **({"dim": model_options["dim"]} if "dim" in model_options else {}),
        **({"hidden": hidden} if hidden else {}),
        **({"dropout": model_options["dropout"]} if "dropout" in model_options else {}),
        "batch_size": trainer.batch_size,
        "learning_rate": ModelConfig(model).family.learning_rate,
        "l2": ModelConfig(model).table_l2(),
        "id_dropout": trainer.id_dropout,
    }


def _suggest(trial: optuna.Trial, defaults: Options) -> Options:
    """Let the trial choose a value of each option."""
    suggest: dict[str, Callable[[], Any]] = {
        "dim": lambda: trial.suggest_categorical("dim", _choices(defaults["dim"], (4, 8, 16, 32))),
        "hidden": lambda: trial.suggest_categorical("hidden", _choices(defaults["hidden"], HIDDEN)),
        "dropout": lambda: trial.suggest_float("dropout", 0.0, 0.6),
        "batch_size": lambda: trial.suggest_categorical(
            "batch_size", _choices(defaults["batch_size"], (256, 1024, 4096))
        ),
        "learning_rate": lambda: trial.suggest_float("learning_rate", 2e-4, 5e-2, log=True),
        "l2": lambda: trial.suggest_float("l2", 1e-5, 1e-1, log=True),
        "id_dropout": lambda: trial.suggest_float("id_dropout", 0.0, 0.6),
    }
    return {option: suggest[option]() for option in defaults}


def _choices(default: Any, others: tuple[Any, ...]) -> list[Any]:
    """Return the default and the other values, each once, in a fixed order."""
    return sorted({default, *others}, key=lambda value: (len(str(value)), str(value)))


def _rounded(options: Mapping[str, Any]) -> Options:
    """Round to four digits, as a command line has them: more would decide nothing."""
    return {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in options.items()}
