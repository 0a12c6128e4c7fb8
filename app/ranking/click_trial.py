"""`ClickTrial` follows a canary's clicks beside stable's, and reports a canary that users click less.

It counts on the thread that writes the event log, of what was written: a request pays nothing for it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

import structlog

from app.events.impression_id import GROUPS, arm_code, arm_of, encode, group_of, is_impression_id, now_ms
from app.events.records import CLICK, Feedback, ImpressionBlock, Record
from app.ranking.canary import CanaryFailure
from app.ranking.click_rates import CANARY_ARM, STABLE_ARM, ClickInterval, ClickRates, Counts
from app.ranking.ranker import Ranking
from app.ranking.request import RankRequest
from app.ranking.routing import CANARY, STABLE
from app.ranking.shared_click_rates import SharedClickRates
from app.registry.lifecycle.snapshot import LiveSnapshot

CHECK_EVERY = 16
"""New clicks between two looks, each of which takes about 30 us."""
WORSE_CLICKS = "clicks"
"""The reason of a withdrawal."""

log = structlog.get_logger(__name__)


class ClickTrial:
    """Compares clicks for as long as the same canary and stable share the traffic in the same way."""

    def __init__(
        self,
        live: Callable[[], LiveSnapshot],
        error: float,
        on_worse: Callable[[int, CanaryFailure], None] = lambda version, failure: None,
        shared: SharedClickRates | None = None,
    ) -> None:
        """
        Args:
            live: returns what is live now; called on the writer's thread.
            error: probability with which a canary that is as good as stable is ever found to differ.
            on_worse: called once per canary that is found worse, with its version, on the event loop's thread.
            shared: adds what other workers have counted; None judges by what this one has.
        """
        self._live = live
        self._error = error
        self._on_worse = on_worse
        self._shared = shared
        self._lock = threading.Lock()
        self._compared: tuple[str, str, float] | None = None
        """Hashes of the manifests of canary and stable, and the canary's share; None while there is no canary."""
        self._version = 0
        self._arms: dict[str, int] = {}
        """The arm by what the ids of its answers have in the place of version and label."""
        self._began = ""
        """Ids of earlier answers are less than this: of those, the two had another share."""
        self._rates = ClickRates(GROUPS)
        self._since_look = 0
        self._interval: ClickInterval | None = None
        self._sign = 0
        """Of the difference that was said."""
        self._found: tuple[int, CanaryFailure] | None = None
        """A canary that is worse and was not reported yet, with its version."""

    def on_ranked(self, request: RankRequest, ranking: Ranking) -> None:
        """Report a canary that was found worse since the answer before; this is a `RankObserver`."""
        if self._found is not None:
            found, self._found = self._found, None
            self._on_worse(*found)

    def add(self, records: Iterable[Record]) -> None:
        """Count records that are new, of any kinds."""
        with self._lock:
            self._follow()
            if self._compared is None:
                return
            for record in records:
                if isinstance(record, ImpressionBlock):
                    for impression_id in record.impression_ids:
                        self._count(impression_id, self._rates.requests)
                elif isinstance(record, Feedback) and record.type == CLICK and is_impression_id(record.request_id):
                    self._since_look += self._count(record.request_id, self._rates.clicks)
            if self._since_look >= CHECK_EVERY:
                self._since_look = 0
                self._look()

    def interval(self) -> ClickInterval | None:
        """Return the last interval of the canary that is live; None without one. Callable from any thread."""
        with self._lock:
            self._follow()
            return self._interval

    def _follow(self) -> None:
        """Begin again where canary, stable or the canary's share have changed."""
        live = self._live()
        canary, stable = live.canary, live.stable
        if canary is None or stable is None or canary is stable:
            self._compared, self._interval = None, None
            return
        compared = canary.manifest_sha256, stable.manifest_sha256, live.canary_share
        if compared == self._compared:
            return
        self._compared, self._version = compared, canary.version
        self._arms = {
            arm_code(stable.version, STABLE): STABLE_ARM,
            arm_code(canary.version, CANARY): CANARY_ARM,
        }
        self._began = encode(now_ms(), 10)
        self._rates, self._interval, self._since_look = ClickRates(GROUPS), None, 0
        self._sign, self._found = 0, None

    def _count(self, impression_id: str, counts: Counts) -> bool:
        """Count an answer, or a click on one, by arm and group; return whether it belongs to the trial."""
        arm = self._arms.get(arm_of(impression_id))
        if arm is None or impression_id < self._began:
            return False
        counts[arm, group_of(impression_id)] += 1
        return True

    def _look(self) -> None:
        rates = self._rates if self._shared is None else self._shared.merged(repr(self._compared), self._rates)
        found = self._interval = rates.interval(self._error)
        sign = 0 if found is None else (found.low > 0) - (found.high < 0)
        if found is None or sign in (0, self._sign):
            return
        self._sign = sign
        figures = {
            "clicks": found.clicks,
            "clicks_expected": round(found.expected, 1),
            "difference": round(found.difference, 4),
            "difference_low": round(found.low, 4),
            "difference_high": round(found.high, 4),
        }
        if sign > 0:
            log.info("canary_clicked_more", version=self._version, **figures)
            return
        detail = (
            f"its answers got {found.clicks} clicks where the rate of both versions together makes expect "
            f"{found.expected:.0f}: its click rate is below stable's by {-found.high:.1%} of that rate or more"
        )
        self._found = self._version, CanaryFailure(WORSE_CLICKS, detail, figures)
