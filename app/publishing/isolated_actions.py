"""Promote and roll back for a running service: in a process of their own, with the service's settings.

They take seconds and gigabytes (the gate; loading what to go back to), of which a process that answers requests has
none to spare.
"""

from __future__ import annotations

import threading
from typing import Literal

import msgspec

from app.errors import ActionFailed, ArtifactError, ConfigError, CtrError
from app.publishing.promote import Promotion, promote
from app.publishing.rollback import Rollback, roll_back
from app.registry.store.model_store import ModelStore
from app.runtime.isolated import IsolatedModule, answer_stream, read_request
from app.settings import Settings, load_settings, publishing_settings

MODULE = "app.publishing.isolated_actions"
BESIDES_GATE_S = 60.0
"""What an action may take beyond the gate's own time limit."""
INTERRUPT_GRACE_S = 5.0
MAX_REASON = 200


class ActionRequest(msgspec.Struct, frozen=True):
    """The action that the process is to carry out."""

    action: Literal["promote", "rollback"]
    version: int | None = None


class ActionError(msgspec.Struct, frozen=True):
    """An error that the action raised on purpose."""

    reason: str
    """The reason of an ArtifactError; empty for any other error."""
    message: str


class ActionAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """The one line that the process answers; one of the three is set."""

    promotion: Promotion | None = None
    rollback: Rollback | None = None
    error: ActionError | None = None


class IsolatedActions:
    """Promotes and rolls back in processes of their own. Methods block; run one at a time."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._module: IsolatedModule | None = None
        self._stopped = False

    def promote(self, version: int) -> Promotion:
        """Make a version stable once it has passed the gate.

        Raises:
            ArtifactError, ConfigError: as `app.publishing.promote.promote` does.
            ActionFailed: the process did not come to an end in time, or crashed.
        """
        promotion = self._run(ActionRequest("promote", version)).promotion
        if promotion is None:
            raise ActionFailed("ctr promote failed: it answered something else")
        return promotion

    def roll_back(self, version: int | None = None) -> Rollback:
        """Return to the version that was stable before, or to this one, which was stable once.

        Raises:
            ArtifactError, ConfigError: as `app.publishing.rollback.roll_back` does.
            ActionFailed: the process did not come to an end in time, or crashed.
        """
        rollback = self._run(ActionRequest("rollback", version)).rollback
        if rollback is None:
            raise ActionFailed("ctr rollback failed: it answered something else")
        return rollback

    def stop(self) -> None:
        """Interrupt the action at work, from any thread, and refuse every later one."""
        with self._lock:
            self._stopped = True
            module = self._module
        if module is not None:
            module.interrupt()

    def _run(self, request: ActionRequest) -> ActionAnswer:
        module = IsolatedModule(
            MODULE,
            timeout_s=self._settings.gate_timeout_s + BESIDES_GATE_S,
            environment=publishing_environment(self._settings),
            interrupt_grace_s=INTERRUPT_GRACE_S,
        )
        with self._lock:
            if self._stopped:
                raise ActionFailed("the service is stopping")
            self._module = module
        try:
            result = module.run(request, ActionAnswer)
        finally:
            self._module = None
        if result.timed_out:
            raise ActionFailed(f"ctr {request.action} did not end in time")
        if not result.answers:
            raise ActionFailed(f"ctr {request.action} failed: {result.reason[:MAX_REASON]}")
        answer = result.answers[-1]
        if answer.error is None:
            return answer
        if answer.error.reason:
            raise ArtifactError(answer.error.reason, answer.error.message)
        raise ConfigError(answer.error.message)


def publishing_environment(settings: Settings) -> dict[str, str]:
    """Write the settings that publishing reads as environment variables, without the service's secrets."""
    values = {name: getattr(settings, name) for name in publishing_settings()}
    return {
        f"CTR_{name.upper()}": ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        for name, value in values.items()
        if value is not None
    }


def perform(request: ActionRequest) -> ActionAnswer:
    """Do in this process what the request says; an error that was raised on purpose becomes the answer."""
    try:
        settings = load_settings()
        store = ModelStore.from_settings(settings)
        if request.action == "rollback":
            return ActionAnswer(rollback=roll_back(store, request.version))
        if request.version is None:
            raise ConfigError("a promotion needs a version")
        return ActionAnswer(promotion=promote(store, request.version, settings))
    except CtrError as error:
        return ActionAnswer(error=ActionError(error.reason if isinstance(error, ArtifactError) else "", str(error)))


def main() -> None:
    """Run as `python -m app.publishing.isolated_actions`: an ActionRequest in, an ActionAnswer out."""
    request = read_request(ActionRequest)
    with answer_stream() as answer:
        answer(perform(request))


if __name__ == "__main__":
    main()
