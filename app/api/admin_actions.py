"""`Admin`: the model store's actions as the admin routes offer them, with errors that a client can be told."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Protocol

import msgspec
from pydantic import Field

from app.api.response_model import ResponseModel
from app.errors import ActionFailed, ArtifactError, ConfigError, Conflict, NotFound, VersionRefused
from app.header_keys import KnownKeys
from app.observability.metrics import Metrics
from app.publishing.promote import Promotion, check_not_refused
from app.publishing.refuse import refuse as refuse_version
from app.publishing.rollback import Rollback
from app.registry.gate.gate_report import read_report
from app.registry.store.model_store import ModelStore


class AdminResult(ResponseModel):
    """The outcome of an admin action."""

    model: str
    version: int = Field(description="The version that was promoted, returned to, or refused")
    labels: list[str] = Field(description="Labels that it has now or, if it was refused, has lost")
    serving: dict[str, Any] = Field(description="serving.json: workers follow it within CTR_POLL_S")
    gate: dict[str, Any] | None = Field(None, description="After a promotion: what the checks found")


class PublishingActions(Protocol):
    """Carries out what takes seconds and gigabytes: `app.publishing.isolated_actions.IsolatedActions` is one."""

    def promote(self, version: int) -> Promotion:
        """Gate a version and make it stable."""
        ...

    def roll_back(self, version: int | None = None) -> Rollback:
        """Make an earlier version stable again."""
        ...


class Admin:
    """Carries out the admin's actions for one key. Its methods block, so they run on a thread."""

    def __init__(self, key: str, store: ModelStore, actions: PublishingActions, metrics: Metrics) -> None:
        self._keys = KnownKeys([key])
        self._store = store
        self._actions = actions
        self.metrics = metrics

    def knows(self, key: str) -> bool:
        """Return whether a header's value is the admin key. Any wrong key takes as long."""
        return self._keys.name_of(key.encode("latin-1", "replace")) is not None

    def promote(self, version: int) -> AdminResult:
        """Make a version stable once it has passed the gate.

        Raises:
            NotFound: there is no such version.
            Conflict: another action is at work, or the version is stable already.
            VersionRefused: the gate refused it, now or earlier.
            ActionFailed: it could not be carried out; nothing was changed.
        """
        with self._exclusive_action(version):
            check_not_refused(self._store, version)  # the process would say so too, seconds later
            promotion = self._actions.promote(version)
        return AdminResult(
            model=promotion.model,
            version=version,
            labels=["stable"],
            serving=msgspec.to_builtins(promotion.serving),
            gate=msgspec.to_builtins(promotion.gate),
        )

    def rollback(self, version: int | None) -> AdminResult:
        """Return to the version that was stable before, or to this one. Raises what `promote` raises."""
        with self._exclusive_action(version):
            rollback = self._actions.roll_back(version)
        return AdminResult(
            model=rollback.model,
            version=rollback.version,
            labels=["stable"],
            serving=msgspec.to_builtins(rollback.serving),
        )

    def refuse(self, version: int) -> AdminResult:
        """Refuse a version and take its labels away. Raises what `promote` raises."""
        with self._exclusive_action(version):
            refusal = refuse_version(self._store, version)
        return AdminResult(
            model=refusal.model,
            version=version,
            labels=refusal.labels,
            serving=msgspec.to_builtins(refusal.serving),
        )

    @contextlib.contextmanager
    def _exclusive_action(self, version: int | None) -> Iterator[None]:
        """Hold the store for one action, and turn the errors of publishing into those of a request."""
        try:
            with self._store.exclusive_action():
                if version is not None and version not in self._store.versions():
                    raise NotFound(f"there is no version {version}; GET /models lists them")
                yield
        except ConfigError as error:
            raise Conflict(str(error)) from error
        except ArtifactError as error:
            if error.reason in ("busy", "stable"):
                raise Conflict(str(error)) from error
            report = read_report(self._store.path(version)) if version is not None else None
            if report is None or report.refusal is None:
                raise ActionFailed(str(error)) from error
            failed = [(check.name, f"{check.reason}: {check.detail}") for check in report.checks if not check.passed]
            raise VersionRefused(str(error), errors=failed) from error
