"""`RankService`: the whole of answering one request, for any edge of the process.

    admission -> decode -> rank -> fallback to stable where a version fails -> observers

An edge reads its bytes, says how to decode them, and writes the answer. Overload protection, fallback, canary
protection, the shadow and the metrics of ranking come with this class, whatever the protocol.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import structlog

from app.errors import RequestError
from app.observability.logs import LogThrottle
from app.ranking.admission import Admission
from app.ranking.fallback import Fallback, SupportsRank
from app.ranking.ranker import Ranking
from app.ranking.request import RankRequest
from app.ranking.request_cost import HEAVY_COST, cost_of, cost_of_bytes
from app.runtime.loop_pacer import SliceTurns

LEAST_LARGE, LARGE_BODY = 8_000, 64_000
"""A request of fewer bytes than the first is not worked on in slices for its size, one of more than the second always:
decoding it alone takes milliseconds."""
LARGE_RATIO = 8.0
"""Between them it is if it has so many times the bytes of a usual one, the median: then others' requests would wait for
it and not it for theirs, and where all are as large none waits."""
MEDIAN_STEP = 0.01
"""Each body moves the median by this share of itself, up or down: a few hundred bodies make a new one."""

TURN_CAME = "the request's turn came"

log = structlog.get_logger(__name__)


class RankObserver(Protocol):
    """Something that is told of every ranking, as the monitor and the shadow are."""

    def __call__(self, request: RankRequest, ranking: Ranking, /) -> None:
        """Take note of an answer; called on the event loop's thread, so it must be quick."""


class BodySizes:
    """Tells large bodies by the median of those before, which goes up or down by a hundredth at each."""

    def __init__(self) -> None:
        self._median = LARGE_BODY / LARGE_RATIO

    def is_large(self, size: int) -> bool:
        """Count a body of so many bytes, and return whether it is large beside the others."""
        median = self._median * (1 + MEDIAN_STEP if size > self._median else 1 - MEDIAN_STEP)
        self._median = min(max(median, LEAST_LARGE / LARGE_RATIO), LARGE_BODY / LARGE_RATIO)
        return size > LARGE_RATIO * self._median


class RankService:
    """Admits, ranks and observes requests. One per process, for use on its event loop."""

    def __init__(
        self,
        ranker: SupportsRank,
        admission: Admission,
        fallback: Fallback,
        *,
        turns: SliceTurns | None = None,
        observers: Sequence[RankObserver] = (),
        on_refused: Callable[[RequestError], None] = lambda error: None,
    ) -> None:
        """
        Args:
            turns: in which large and heavy requests are decoded and begun; those of the ranker, or by default of their
                own.
            observers: told of each ranking, in this order, before it is returned; what one raises is logged.
            on_refused: told of each request that ended with a RequestError.
        """
        self._ranker = ranker
        self._admission = admission
        self._fallback = fallback
        self._turns = turns or SliceTurns()
        self._body_sizes = BodySizes()
        self._observers = tuple(observers)
        self._on_refused = on_refused
        self._log_throttle = LogThrottle()

    async def rank(
        self,
        decode: Callable[[], RankRequest],
        deadline_s: float,
        *,
        received_at: float | None = None,
        size: int = 0,
        decode_in_slices: Callable[[], Awaitable[RankRequest]] | None = None,
    ) -> Ranking:
        """Rank one request.

        Args:
            decode: makes the request; called once it is admitted, so that an overloaded process does not even parse.
            deadline_s: seconds from `received_at` after which the answer is no longer wanted.
            received_at: `time.perf_counter()` at which the first byte of the request came; by default now.
            size: the bytes that are to be decoded.
            decode_in_slices: makes the request in place of `decode` if the body is large beside others'; by default
                `decode` does.

        Raises:
            Overloaded: too many requests are at work; nothing was decoded, unless the request is a heavy one.
            DeadlinePassed: its time was over before it was begun, or before it was ranked.
            RequestError: what `decode` and `decode_in_slices` raise, or one of those of `Ranker.rank`.
        """
        began = time.perf_counter()
        due = (began if received_at is None else received_at) + deadline_s
        admission = self._admission
        try:
            waited_s = 0.0 if received_at is None else began - received_at
            cost = admission.enter(cost_of_bytes(size), waited_s, due - began)
            is_large = self._body_sizes.is_large(size)
            reply_s: float | None = None
            try:
                if is_large:
                    admission.let_others_first(cost)
                    await self._turns.next_before(due, TURN_CAME)
                    began = time.perf_counter()
                request = await decode_in_slices() if is_large and decode_in_slices else decode()
                decoded = time.perf_counter()
                cost = admission.correct(cost, cost_of(request), due - decoded, is_before_others=not is_large)
                if is_large or cost >= HEAVY_COST:
                    request = request.replace(in_slices=True)
                    await self._turns.next_before(due, TURN_CAME)
                live = self._fallback.snapshot()
                try:
                    ranking = await self._ranker.rank(request, due)
                except Exception as error:
                    ranking = await self._fallback.rank(request, due, error, live)
                if request.user_id is not None:  # for a guest the store is hardly ever asked
                    reply_s = ranking.features_s
            finally:
                admission.leave(cost, is_before_others=not is_large, reply_s=reply_s)
        except RequestError as error:
            self._on_refused(error)
            raise
        ranking.decode_s = decoded - began
        for observer in self._observers:  # about 5 us of them all; a turn of the loop for them would cost 3 us more
            try:
                observer(request, ranking)
            except Exception as error:  # the request is answered all the same, and the other observers are told
                if self._log_throttle.admits():
                    log.error("rank_observer_failed", exc_info=error)
        return ranking
