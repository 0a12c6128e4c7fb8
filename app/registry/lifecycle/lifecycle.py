"""Follows the model store while traffic runs: notice, load, check, prepare, replace one reference, drain, retire.

Nothing here raises into a request. Whatever is wrong with a new version, the live one serves on, and the reason is
logged, counted and shown. Loading happens in a worker thread, so the event loop turns throughout.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

import structlog

from app.errors import ArtifactError
from app.registry.artifact.artifact import Artifact
from app.registry.gate.gate_report import GateCheck, recorded_withdrawal
from app.registry.lifecycle.live_files import LiveFiles
from app.registry.lifecycle.loader_thread import LoaderThread
from app.registry.lifecycle.problems import StandingProblems
from app.registry.lifecycle.refusals import Refusals
from app.registry.lifecycle.retirement import Retirement
from app.registry.lifecycle.snapshot import LABELS, Label, LifecycleStatus, LiveSnapshot, Outcome, Problem, SwapEvent
from app.registry.lifecycle.store_state import StoreState, TargetVersion, read_store_state, target_version
from app.registry.lifecycle.swap_log import SwapLog
from app.registry.store.model_store import ModelStore

log = structlog.get_logger(__name__)


MAX_READINGS = 5
"""How often the store is read in a row where the pointer goes on while a version loads."""


class _Superseded(Exception):
    """A version cannot be loaded, and the pointer names another by now: it may have been removed for that one."""


class Lifecycle:
    """Keeps the live versions of one worker as the model store asks. All methods belong to one event loop."""

    def __init__(
        self,
        store: ModelStore,
        *,
        prepare: Callable[[Artifact], Awaitable[None]],
        retire: Callable[[Artifact], None],
        on_event: Callable[[SwapEvent], None] = lambda event: None,
        device: str = "cpu",
        poll_s: float = 1.0,
        grace_s: float = 1.0,
    ) -> None:
        """
        Args:
            prepare: awaited before a version goes live, say to encode items for it and warm it up; an ArtifactError
                refuses the version for good, any other exception until a later try.
            retire: called for a version that no label points at any more, `grace_s` seconds after the swap.
            poll_s: seconds between two readings of the store.
        """
        self.store = store
        self._prepare, self._device, self._poll_s = prepare, device, poll_s
        self._events = SwapLog(store.name, on_event)
        self._live = LiveSnapshot(model=store.name)
        self._lock = asyncio.Lock()
        self._loader = LoaderThread()
        self._files = LiveFiles(store)
        self._pointer_content: bytes | None = None
        self._refusals = Refusals(first_backoff_s=poll_s)
        self._problems = StandingProblems()
        self._last_swap_at: float | None = None
        self._retirement = Retirement(retire, self._events, grace_s)
        self._poller: asyncio.Task[None] | None = None

    @property
    def live(self) -> LiveSnapshot:
        """The snapshot of what is live; read it once for a whole request."""
        return self._live

    def status(self) -> LifecycleStatus:
        """Return what is live and what is wrong, for `/health` and `/models`."""
        return LifecycleStatus(
            self.store.name,
            {label: artifact.version for label, artifact in self._live.labels().items()},
            self._live.canary_share,
            self._live.fallback,
            self._last_swap_at,
            self._problems.standing(),
            self._files.damages,
        )

    async def start(self) -> None:
        """Activate what the pointer names, or the last good version, or nothing yet; then follow the store."""
        await self._poll()
        self._poller = asyncio.create_task(self._keep_polling(), name="model-store-poll")

    async def stop(self) -> None:
        """End every task of the lifecycle; what is live stays."""
        if self._poller is not None:
            self._poller.cancel()
            await asyncio.gather(self._poller, return_exceptions=True)
        self._poller = None
        await self._retirement.stop()
        self._loader.stop()

    async def refresh(self) -> bool:
        """Read the store once and follow it. Returns True if what is live changed."""
        async with self._lock:
            # Not the snapshot itself: it would keep the version before alive while the next one loads.
            before = self._in_service()
            for _ in range(MAX_READINGS):
                read_at = time.monotonic()
                try:
                    await self._reconcile(await self._loader.run(read_store_state, self.store), read_at)
                    break
                except _Superseded:
                    continue
            await self._loader.run(self._files.look, self._live.labels().values())
            return self._in_service() != before

    async def withdraw(self, version: int, refusal: GateCheck) -> None:
        """Take a canary out: here at once, and in the model store, from where the other workers learn of it.

        It stays out until the pointer is written anew, in this process even if the store cannot be written to. A
        refresh that is under way does not bring it back: its reading of the store is older than this refusal.
        """
        canary = self._live.canary
        if canary is None or canary.version != version:
            return
        before = self._live.labels().values()
        target = TargetVersion(version, canary.manifest_sha256)
        self._refusals.record(target, refusal.reason, refusal.detail, final=True)
        del canary
        self._problems.withdrawal = Problem("canary", version, refusal.reason, refusal.detail)
        self._live = self._live.with_label("canary", None)
        self._retirement.schedule(before, self._live.labels().values(), "canary")
        self._events.emit(SwapEvent("withdrawn", "canary", version, refusal.reason, refusal.detail))
        try:
            labels = await self._loader.run(self.store.withdraw, version, refusal)
        except ArtifactError as error:
            log.error("model_not_withdrawn_from_store", model=self.store.name, version=version, reason=str(error))
        else:
            log.warning("model_withdrawn_from_store", model=self.store.name, version=version, labels=labels)

    # Following the store

    async def _keep_polling(self) -> None:
        while True:
            await asyncio.sleep(self._poll_s)
            await self._poll()

    async def _poll(self) -> None:
        try:
            await self.refresh()
        except Exception:  # the poller outlives any bug in a step: a dead poller would serve one model for ever
            log.exception("model_poll_failed", model=self.store.name)

    async def _reconcile(self, state: StoreState, read_at: float) -> None:
        """Make what is live what the store asks for, label by label.

        Args:
            read_at: when the reading of `state` began, on the monotonic clock.
        """
        if state.content is not None and state.content != self._pointer_content:
            self._pointer_content = state.content
            self._refusals.forget_before(read_at)  # a rewritten pointer asks again for what was refused before
        if state.error is not None:
            self._record_problem(Problem("pointer", None, state.error.reason, str(state.error)))
            if self._live.stable is None and state.error.reason == "pointer":
                await self._fall_back(None)
            return
        self._problems.resolve("pointer")
        for label in LABELS:
            target = state.targets.get(label)
            if target is None:
                await self._release(label)
            elif await self._reconcile_label(label, target) and label == "canary":
                self._live = replace(self._live, canary_share=state.canary_share)

    async def _reconcile_label(self, label: Label, target: TargetVersion) -> bool:
        """Return True if the label now is what the store asks for."""
        if not target.matches(self._live.labels().get(label)) and not await self._try_activate(label, target):
            refusal = self._refusals[target]
            self._problems.record(Problem(label, target.version, refusal.reason, refusal.message))
            if label == "stable" and self._live.stable is None:
                await self._fall_back(target.version)
            if label == "stable":
                self._live = replace(self._live, fallback=self._live.stable is not None)
            return False
        self._problems.resolve(label)
        if label == "stable" and self._live.fallback:
            self._live = replace(self._live, fallback=False)
        return True

    async def _fall_back(self, refused: int | None) -> None:
        """Activate the last good version: nothing is live and what was asked for is bad."""
        for version in await self._loader.run(self.store.rollback_candidates, refused):
            target = await self._loader.run(target_version, self.store, version)
            if await self._try_activate("stable", target, "fallback"):
                self._live = replace(self._live, fallback=True)
                return

    async def _try_activate(self, label: Label, target: TargetVersion, outcome: Outcome = "live") -> bool:
        """Make a version live under a label; return False, with the refusal recorded, if that cannot be done."""
        if self._refusals.holds_back(target):
            return False
        started = time.monotonic()
        try:
            artifact = await self._load_and_prepare(label, target)
        except Exception as error:
            if outcome == "live" and isinstance(error, ArtifactError) and await self._is_superseded(label, target):
                raise _Superseded from error
            reason, message = error.reason if isinstance(error, ArtifactError) else "prepare", str(error) or repr(error)
            self._refusals.record(target, reason, message)
            self._events.emit(SwapEvent("refused", label, target.version, reason, message, time.monotonic() - started))
            if not isinstance(error, ArtifactError):
                log.exception("model_not_prepared", label=label, version=target.version)
            return False
        self._refusals.forget(target)
        self._swap(label, artifact)
        self._events.emit(SwapEvent(outcome, label, target.version, seconds=time.monotonic() - started))
        return True

    async def _is_superseded(self, label: Label, target: TargetVersion) -> bool:
        """Return whether the pointer, read again, names another version under the label."""
        state = await self._loader.run(read_store_state, self.store)
        now = state.targets.get(label)
        return state.error is None and now is not None and now.version != target.version

    async def _load_and_prepare(self, label: Label, target: TargetVersion) -> Artifact:
        """Return the version loaded, checked and prepared. Raises ArtifactError, or what `prepare` raises."""
        if self.store.trust is not None:
            self.store.trust.check_permitted(target.version)
        for serving in self._live.labels().values():
            if target.matches(serving):
                return serving
        # A version that drains, or the one before, and this one: more than two would not fit where two do.
        await self._retirement.wait()
        artifact = self._live.previous
        if artifact is None or not target.matches(artifact):
            if label == "stable":
                self._live = replace(self._live, previous=None)
            del artifact
            await self._loader.run(self._files.note, target.version)
            artifact = await self._loader.load(self.store, target.version, self._device)
        await self._prepare(artifact)
        return artifact

    def _swap(self, label: Label, artifact: Artifact) -> None:
        old = self._live
        self._live = old.with_label(label, artifact)
        self._last_swap_at = time.time()
        if label != "shadow":
            self._problems.withdrawal = None  # it stands for as long as nothing else goes live
        if label == "stable" and self.store.trust is not None:
            self.store.trust.record_stable(artifact.version)
        self._retirement.schedule(old.labels().values(), self._live.labels().values(), label)

    async def _release(self, label: Label) -> None:
        """Take a version out of service whose label the pointer no longer names; who took it may have said why."""
        self._problems.resolve(label)
        if label == "canary" and self._live.canary is not None:
            version, digest = self._live.canary.version, self._live.canary.manifest_sha256
            check = await self._loader.run(recorded_withdrawal, self.store.path(version), digest)
            if check is not None:
                self._problems.withdrawal = Problem(label, version, check.reason, check.detail)
        old = self._live
        if label != "stable" and label in old.labels():
            self._live = old.with_label(label, None)
            self._retirement.schedule(old.labels().values(), self._live.labels().values(), label)

    # Reporting

    def _record_problem(self, problem: Problem) -> None:
        """Emit a standing problem once."""
        if self._problems.record(problem):
            self._events.emit(SwapEvent("refused", problem.label, problem.version, problem.reason, problem.message))

    def _in_service(self) -> tuple[dict[str, str], float]:
        live = self._live
        return {label: artifact.manifest_sha256 for label, artifact in live.labels().items()}, live.canary_share
