"""POST /rank: bytes in, bytes out. A bare ASGI endpoint, because routing and models per item cost more than scoring.

FastAPI documents the route (`app.api.openapi`); the application hands POST /rank to this class directly.
"""

from __future__ import annotations

import time

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from app.api.middleware import read_body, timeout_s_of
from app.api.problems import problem_response
from app.api.rank_response import answer
from app.api.schemas import parse_rank
from app.errors import DeadlinePassed, NoModel, Overloaded, RequestError
from app.observability.metrics import Metrics
from app.ranking.admission import Admission
from app.ranking.fallback import Rescue
from app.ranking.monitor import Watch
from app.ranking.ranker import INVALID_FEATURES, NOT_FINITE, Ranker, Ranking
from app.ranking.shadow import Shadow
from app.runtime.busy_poll import BusyPoll


class RankEndpoint:
    def __init__(
        self,
        ranker: Ranker,
        admission: Admission,
        metrics: Metrics,
        watch: Watch,
        rescue: Rescue,
        shadow: Shadow,
        poll: BusyPoll,
        *,
        max_candidates: int,
        deadline_s: float,
    ) -> None:
        self._ranker = ranker
        self._admission = admission
        self._metrics = metrics
        self._watch = watch
        self._rescue = rescue
        self._shadow = shadow
        self._poll = poll
        self._max_candidates = max_candidates
        self._deadline_s = deadline_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id: str = scope["state"]["request_id"]
        try:
            deadline_s = timeout_s_of(dict(scope["headers"]), self._deadline_s)
            raw = await read_body(receive)
            began = time.perf_counter()
            with self._admission:
                body = parse_rank(raw, self._max_candidates)
                decoded = time.perf_counter()
                try:
                    ranking = await self._ranker.rank(body, began + deadline_s)
                except Exception as error:
                    ranking = await self._rescue.rank(body, began + deadline_s, error)
            ranked = time.perf_counter()
            content = answer(ranking, body.request_id or request_id)
        except RequestError as error:
            self._count_refusal(error)
            await problem_response(error, request_id)(scope, receive, send)
            return
        except ClientDisconnect:
            raise
        except Exception:
            self._metrics.count_answer(500)
            raise  # answered and logged by the Edge
        finished = time.perf_counter()
        stages_s = (decoded - began, ranking.features_s, ranking.encode_s, ranking.score_s, finished - ranked)
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [
                    (b"content-type", b"application/json"),
                    (b"content-length", b"%d" % len(content)),
                    (b"x-model-version", b"%d" % ranking.artifact.version),
                    (
                        b"server-timing",
                        b"decode;dur=%.3f, features;dur=%.3f, encode;dur=%.3f, score;dur=%.3f, respond;dur=%.3f"
                        % tuple([seconds * 1000 for seconds in stages_s]),
                    ),
                ],
            }
        )
        await send({"type": "http.response.body", "body": content})
        self._count(ranking, stages_s, finished - began)
        finite = NOT_FINITE not in ranking.degraded
        self._watch.answered(
            ranking.label, ranking.artifact.version, ranking.scores, finite=finite, pinned=body.model is not None
        )
        self._shadow.answered(body, ranking)
        self._poll.answered()

    def _count(self, ranking: Ranking, stages_s: tuple[float, ...], total_s: float) -> None:
        metrics = self._metrics
        metrics.observe_request(stages_s, total_s, len(ranking.candidates), ranking.artifact.version)
        if ranking.degraded:
            for reason in ranking.degraded:
                metrics.degraded[reason].inc()
            if INVALID_FEATURES in ranking.degraded:
                metrics.features_invalid["user"].inc()
        if ranking.missing_user:
            metrics.features_missing["user"].inc()
        if ranking.missing_items:
            metrics.features_missing["item"].inc(len(ranking.missing_items))

    def _count_refusal(self, error: RequestError) -> None:
        self._metrics.count_answer(error.status)
        if isinstance(error, Overloaded | NoModel | DeadlinePassed):
            self._metrics.rejected[REJECTIONS[type(error)]].inc()


REJECTIONS: dict[type[RequestError], str] = {
    Overloaded: "overloaded",
    NoModel: "no_model",
    DeadlinePassed: "deadline_passed",
}
