"""Follows the model store while traffic runs: notice, load, check, prepare, replace one reference, drain, retire.

Nothing here raises into a request. Whatever is wrong with a new version, the live one serves on, and the reason is
logged, counted and shown. Loading happens in a worker thread, so the event loop turns throughout.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import structlog

from app.errors import ArtifactError
from app.registry.artifact.artifact import Artifact
from app.registry.gate.gate_report import GateCheck, recorded_withdrawal
from app.registry.lifecycle.poll import StoreState, TargetVersion, read_store_state, target_version
from app.registry.lifecycle.snapshot import LABELS, Label, LifecycleStatus, LiveSnapshot, Outcome, Problem, SwapEvent
from app.registry.store.model_store import ModelStore
from app.runtime.thread_pacer import in_background

__all__ = ["Label", "Lifecycle", "LifecycleStatus", "LiveSnapshot", "Problem", "SwapEvent"]

T = TypeVar("T")
log = structlog.get_logger(__name__)

TRANSIENT = frozenset({"file", "hash", "load", "prepare", "gate"})
"""Reasons that time may cure (a copy under way, a store that is down, a second judgement): tried ever more rarely."""
MAX_BACKOFF_S = 60.0


@dataclass(frozen=True)
class _Refusal:
    reason: str
    message: str
    attempts: int
    retry_at: float
    """On the monotonic clock; infinite where only a new pointer or manifest can help."""


class Lifecycle:
    """What is live in this process. One per worker; all methods belong to one event loop."""

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
            prepare: awaited before a version goes live, say to encode items for it and warm it up; an
                ArtifactError refuses the version for good, any other exception until a later try.
            retire: called for a version that no label holds any more, `grace_s` seconds after the swap.
            poll_s: seconds between looks at the store.
        """
        self.store = store
        self._prepare, self._retire, self._on_event = prepare, retire, on_event
        self._device, self._poll_s, self._grace_s = device, poll_s, grace_s
        self._live = LiveSnapshot()
        self._lock = asyncio.Lock()
        # One thread of its own: loads never wait for other work, and every model comes from one malloc arena.
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="model-store")
        self._content: bytes | None = None
        self._refused: dict[TargetVersion, _Refusal] = {}
        self._problems: dict[str, Problem] = {}
        self._withdrawn: Problem | None = None
        self._last_swap_at: float | None = None
        self._draining: set[asyncio.Task[None]] = set()
        self._poller: asyncio.Task[None] | None = None

    @property
    def live(self) -> LiveSnapshot:
        return self._live

    def status(self) -> LifecycleStatus:
        problems = ({"canary": self._withdrawn} if self._withdrawn else {}) | self._problems
        return LifecycleStatus(
            self.store.name,
            {label: artifact.version for label, artifact in self._live.labels().items()},
            self._live.canary_share,
            self._live.fallback,
            self._last_swap_at,
            tuple(problems.values()),
        )

    async def start(self) -> None:
        """Bring up what the pointer names, or the last good version, or nothing yet; then follow the store."""
        await self._step()
        self._poller = asyncio.create_task(self._poll(), name="model-store-poll")

    async def stop(self) -> None:
        tasks = [task for task in (self._poller, *self._draining) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._poller = None
        self._loader.shutdown(wait=False)

    async def refresh(self) -> bool:
        """Look at the store once and follow it. True where what is live changed."""
        async with self._lock:
            # Not the snapshot itself: it would keep the version before alive while the next one loads.
            before = self._in_service()
            await self._follow(await self._in_thread(read_store_state, self.store))
            return self._in_service() != before

    async def withdraw(self, version: int, refusal: GateCheck) -> None:
        """Take a canary out: here at once, and in the model store, from where the other workers learn of it.

        It stays out until it is asked for again, here even where the store cannot be written to.
        """
        canary = self._live.canary
        if canary is None or canary.version != version:
            return
        before = self._live.labels().values()
        refused = _Refusal(refusal.reason, refusal.detail, 1, math.inf)
        self._refused[TargetVersion(version, canary.manifest_sha256)] = refused
        del canary
        self._withdrawn = Problem("canary", version, refusal.reason, refusal.detail)
        self._live = replace(self._live, canary=None, canary_share=0.0)
        self._drain(before, "canary")
        self._tell(SwapEvent("withdrawn", "canary", version, refusal.reason, refusal.detail))
        try:
            labels = await self._in_thread(self.store.withdraw, version, refusal)
        except ArtifactError as error:
            log.error("model_not_withdrawn_from_store", model=self.store.name, version=version, reason=str(error))
        else:
            log.warning("model_withdrawn_from_store", model=self.store.name, version=version, labels=labels)

    def _in_thread(self, function: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._loader, function, *args)

    def _in_service(self) -> tuple[dict[str, str], float]:
        live = self._live
        return {label: held.manifest_sha256 for label, held in live.labels().items()}, live.canary_share

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self._poll_s)
            await self._step()

    async def _step(self) -> None:
        try:
            await self.refresh()
        except Exception:  # the poller outlives any bug in a step: a dead poller would serve one model for ever
            log.exception("model_poll_failed", model=self.store.name)

    async def _follow(self, state: StoreState) -> None:
        if state.content is not None and state.content != self._content:
            self._content = state.content
            self._refused.clear()  # a rewritten pointer asks again
        if state.error is not None:
            self._complain("pointer", None, state.error.reason, str(state.error))
            if self._live.stable is None and state.error.reason == "pointer":
                await self._fall_back(None)
            return
        self._problems.pop("pointer", None)
        for label in LABELS:
            wanted = state.targets.get(label)
            if wanted is None:
                await self._release(label)
            elif await self._follow_label(label, wanted) and label == "canary":
                self._live = replace(self._live, canary_share=state.canary_share)

    async def _follow_label(self, label: Label, wanted: TargetVersion) -> bool:
        """True where the label now is what was wanted."""
        if not wanted.matches(getattr(self._live, label)) and not await self._bring_up(label, wanted):
            refusal = self._refused[wanted]
            self._problems.pop(label, None)  # so that the latest stands last
            self._problems[label] = Problem(label, wanted.version, refusal.reason, refusal.message)
            if label == "stable" and self._live.stable is None:
                await self._fall_back(wanted.version)
            if label == "stable":
                self._live = replace(self._live, fallback=self._live.stable is not None)
            return False
        self._problems.pop(label, None)
        if label == "stable" and self._live.fallback:
            self._live = replace(self._live, fallback=False)
        return True

    async def _fall_back(self, refused: int | None) -> None:
        """Nothing is live and what was asked for is bad: the last good version is better than none."""
        for version in await self._in_thread(self.store.rollback_candidates, refused):
            wanted = await self._in_thread(target_version, self.store, version)
            if await self._bring_up("stable", wanted, "fallback"):
                self._live = replace(self._live, fallback=True)
                return

    async def _bring_up(self, label: Label, wanted: TargetVersion, outcome: Outcome = "live") -> bool:
        refusal = self._refused.get(wanted)
        if refusal is not None and time.monotonic() < refusal.retry_at:
            return False
        started = time.monotonic()
        try:
            artifact = await self._ready(label, wanted)
        except Exception as error:
            reason = error.reason if isinstance(error, ArtifactError) else "prepare"
            self._refuse(label, wanted, reason, str(error) or repr(error), time.monotonic() - started)
            if not isinstance(error, ArtifactError):
                log.exception("model_not_prepared", label=label, version=wanted.version)
            return False
        self._refused.pop(wanted, None)
        self._swap(label, artifact)
        self._tell(SwapEvent(outcome, label, wanted.version, seconds=time.monotonic() - started))
        return True

    async def _ready(self, label: Label, wanted: TargetVersion) -> Artifact:
        """The version loaded, checked and prepared. Raises ArtifactError, or whatever `prepare` raises."""
        if self.store.trust is not None:
            self.store.trust.permit(wanted.version)
        for serving in self._live.labels().values():
            if wanted.matches(serving):
                return serving
        # A version still draining, or the one before, and this one: more than two would not fit where two do.
        await asyncio.gather(*self._draining, return_exceptions=True)
        artifact = self._live.previous
        if artifact is None or not wanted.matches(artifact):
            if label == "stable":
                self._live = replace(self._live, previous=None)
            del artifact
            read = partial(self.store.load, wanted.version, self._device)
            artifact = await self._in_thread(_loaded, read)
        await self._prepare(artifact)
        return artifact

    def _swap(self, label: Label, artifact: Artifact) -> None:
        old = self._live
        changes: dict[str, Artifact | None] = {label: artifact}
        if label == "stable" and old.stable is not None:
            changes["previous"] = old.stable
        self._live = replace(old, **changes)  # type: ignore[arg-type]
        self._last_swap_at = time.time()
        if label != "shadow":
            self._withdrawn = None  # told for as long as things are as they were left
        if label == "stable" and self.store.trust is not None:
            self.store.trust.went_live(artifact.version)
        self._drain(old.labels().values(), label)

    async def _release(self, label: Label) -> None:
        """The pointer no longer names the label; another worker, or an operator, may have said why."""
        self._problems.pop(label, None)
        if label == "canary" and self._live.canary is not None:
            version, digest = self._live.canary.version, self._live.canary.manifest_sha256
            why = await self._in_thread(recorded_withdrawal, self.store.path(version), digest)
            if why is not None:
                self._withdrawn = Problem(label, version, why.reason, why.detail)
        old = self._live
        if label != "stable" and getattr(old, label) is not None:
            share = 0.0 if label == "canary" else old.canary_share
            self._live = replace(old, canary_share=share, **{label: None})  # type: ignore[arg-type]
            self._drain(old.labels().values(), label)

    def _drain(self, before: Iterable[Artifact], label: str) -> None:
        """Retire those that no label holds any more, once requests that began with them are done."""
        held = {id(artifact) for artifact in self._live.labels().values()}
        for artifact in {id(artifact): artifact for artifact in before}.values():
            if id(artifact) not in held:
                task = asyncio.create_task(self._retired(artifact, label))
                self._draining.add(task)
                task.add_done_callback(self._draining.discard)

    async def _retired(self, artifact: Artifact, label: str) -> None:
        await asyncio.sleep(self._grace_s)
        try:
            self._retire(artifact)
        except Exception:
            log.exception("model_not_retired", version=artifact.version)
        self._tell(SwapEvent("retired", label, artifact.version))

    def _refuse(self, label: str, wanted: TargetVersion, reason: str, message: str, seconds: float) -> None:
        earlier = self._refused.get(wanted)
        attempts = earlier.attempts + 1 if earlier else 1
        wait_s = min(MAX_BACKOFF_S, self._poll_s * 2**attempts) if reason in TRANSIENT else math.inf
        self._refused[wanted] = _Refusal(reason, message, attempts, time.monotonic() + wait_s)
        self._tell(SwapEvent("refused", label, wanted.version, reason, message, seconds))

    def _complain(self, label: str, version: int | None, reason: str, message: str) -> None:
        """A standing problem is told once."""
        problem = Problem(label, version, reason, message)
        if self._problems.get(label) != problem:
            self._problems.pop(label, None)
            self._problems[label] = problem
            self._tell(SwapEvent("refused", label, version, reason, message))

    def _tell(self, event: SwapEvent) -> None:
        write = log.warning if event.outcome in ("refused", "fallback", "withdrawn") else log.info
        write("model_" + event.outcome, model=self.store.name, label=event.label, version=event.version,
              reason=event.reason, detail=event.detail, seconds=round(event.seconds, 4))  # fmt: skip
        try:
            self._on_event(event)
        except Exception:
            log.exception("model_event_not_counted", outcome=event.outcome)


def _loaded(read: Callable[[], Artifact]) -> Artifact:
    """Runs in a worker thread. Running out of memory or files is a reason as good as any other."""
    try:
        with in_background():
            return read()
    except ArtifactError:
        raise
    except Exception as error:
        raise ArtifactError("load", f"cannot be loaded: {error!r}") from error
