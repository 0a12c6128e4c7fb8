"""POST /rank: reads the body, has the service rank it, writes the answer.

A bare ASGI endpoint, because routing and models per item cost more than scoring. FastAPI only documents the route
(`app.api.openapi`); the application hands POST /rank to this class directly.
"""

from __future__ import annotations

import time

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from app.api.bounded_body import read_body
from app.api.content_coding import decoded
from app.api.headers import Headers, timeout_s_of
from app.api.key_rates import KeyRates
from app.api.large_bodies import parse_rank_in_slices
from app.api.problems import problem_response
from app.api.rank_response import encode_explained, encode_ranking
from app.api.schemas import parse_rank
from app.errors import RateLimited, RequestError
from app.observability.metrics import Metrics
from app.ranking.service import RankService
from app.runtime.http_protocol import RECEIVED_AT
from app.runtime.loop_pacer import SliceTurns

SERVER_TIMING = b"decode;dur=%.3f, features;dur=%.3f, encode;dur=%.3f, score;dur=%.3f, respond;dur=%.3f"
"""Milliseconds per stage, in the order of `STAGES`."""
LONG_PIECE = 32_000
"""Bytes of an answer after which others have their turn: the kernel takes some 50 us for twice as many."""


class RankEndpoint:
    """The HTTP edge of `RankService`."""

    def __init__(
        self,
        service: RankService,
        metrics: Metrics,
        *,
        max_candidates: int,
        max_body_bytes: int,
        deadline_s: float,
        turns: SliceTurns,
        key_rates: KeyRates | None = None,
    ) -> None:
        """
        Args:
            max_body_bytes: most bytes of a body once its Content-Encoding is undone.
            deadline_s: seconds after which every request is given up; clients may ask for less.
            turns: in which large bodies are parsed and explained answers written; those of the ranker.
            key_rates: bounds what each key asks for; None where there are no keys, or no bounds.
        """
        self._service = service
        self._metrics = metrics
        self._max_candidates = max_candidates
        self._max_body_bytes = max_body_bytes
        self._deadline_s = deadline_s
        self._turns = turns
        self._key_rates = key_rates

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        state = scope["state"]
        request_id: str = state["request_id"]
        received_at: float = state.get(RECEIVED_AT) or time.perf_counter()
        try:
            headers: Headers = dict(scope["headers"])
            deadline_s = timeout_s_of(headers, self._deadline_s)
            body = await read_body(receive)
            if self._key_rates is not None:
                self._key_rates.take(headers[b"x-api-key"], len(body))
            began = time.perf_counter()  # a slow body is not the service's delay, but it takes of the request's time
            ranking = await self._service.rank(
                lambda: parse_rank(self._without_coding(body, headers), self._max_candidates),
                deadline_s,
                received_at=received_at,
                size=len(body),
                decode_in_slices=lambda: parse_rank_in_slices(
                    self._without_coding(body, headers), self._max_candidates, self._turns
                ),
            )
            ranked = time.perf_counter()
            name = ranking.request_id or ranking.impression_id or request_id
            if ranking.explanations:
                pieces = await encode_explained(ranking, name, self._turns)
            else:
                pieces = [encode_ranking(ranking, name)]
        except RequestError as error:
            if isinstance(error, RateLimited):
                self._metrics.rejected["rate_limited"].inc()
            self._metrics.count_answer(error.status)
            await problem_response(error, request_id)(scope, receive, send)
            return
        except ClientDisconnect:
            raise
        except Exception:
            self._metrics.count_answer(500)
            raise  # the Edge answers and logs it
        finished = time.perf_counter()
        version = ranking.artifact.version
        stages_s = (ranking.decode_s, ranking.features_s, ranking.encode_s, ranking.score_s, finished - ranked)
        answer_headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % sum(map(len, pieces))),
            (b"x-model-version", b"%d" % version),
            (b"server-timing", SERVER_TIMING % tuple([seconds * 1000 for seconds in stages_s])),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": answer_headers})
        for piece in pieces[:-1]:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            if len(piece) > LONG_PIECE:
                await self._turns.next()
        await send({"type": "http.response.body", "body": pieces[-1]})
        self._metrics.observe_request(stages_s, finished - began, len(ranking.candidates), version)

    def _without_coding(self, body: bytes, headers: Headers) -> bytes:
        """Return the body with its Content-Encoding undone. Raises RequestError if that cannot be done."""
        return decoded(body, headers, self._max_body_bytes) if b"content-encoding" in headers else body
