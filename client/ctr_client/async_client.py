"""`AsyncCtrClient`: the client for asyncio; `CtrClient`, with awaits."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import httpx

from ctr_client.answers import Feedback, FeedbackResult, Health, Ranking, Version
from ctr_client.errors import CtrClientError
from ctr_client.exchange import (
    content_of,
    error_from,
    feedback_bodies,
    feedback_result,
    headers_of,
    health_of,
    rank_body,
    timeout_headers,
    versions_of,
)
from ctr_client.retries import Pause, RetryBudget, attempts


class AsyncCtrClient:
    """Calls one service. Make one for the life of a process, and share it between tasks: connections are kept."""

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout_s: float = 1.0,
        attempts: int = 3,
        budget: RetryBudget | None = None,
        connections: int = 100,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """
        Args:
            url: of the service, with its sub-path if it has one.
            api_key: sent as X-API-Key.
            timeout_s: for each call as a whole, unless the call says otherwise.
            attempts: of one call at most; 1 never tries again.
            budget: of retries; by default one in five calls, shared by all calls of this client.
            connections: kept and used again at most.
            transport: what carries requests, for tests.
        """
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=60)
        self._http = httpx.AsyncClient(base_url=url, headers=headers_of(api_key), limits=limits, transport=transport)
        self._timeout_s = timeout_s
        self._attempts = attempts
        self._budget = budget or RetryBudget()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def rank(
        self,
        user_id: str | int | None,
        item_ids: Sequence[str | int],
        *,
        context: Mapping[str, Any] | None = None,
        user_features: Mapping[str, Any] | None = None,
        item_features: Mapping[str, Mapping[str, Any]] | None = None,
        top_k: int | None = None,
        model: str | int | None = None,
        explain: bool | None = None,
        request_id: str | None = None,
        timeout_s: float | None = None,
    ) -> Ranking:
        """Rank candidates by click probability.

        Args:
            user_id: None for a guest.
            item_ids: the candidates.
            context: values of the request's own fields, such as the hour.
            user_features, item_features: go before the stored values, for this request.
            top_k: how many of the best to return; all without it.
            model: a label or a version; by default the service decides.
            explain: say why the best items have their scores.
            request_id: the caller's own name for the request.
            timeout_s: for the call as a whole, retries included.

        Raises CtrClientError.
        """
        options = {
            "context": context,
            "user_features": user_features,
            "item_features": item_features,
            "top_k": top_k,
            "model": model,
            "explain": explain,
            "request_id": request_id,
        }
        return Ranking.of(await self._call("POST", "rank", rank_body(user_id, item_ids, options), timeout_s))

    async def feedback(
        self, records: Feedback | Iterable[Feedback], *, timeout_s: float | None = None
    ) -> FeedbackResult:
        """Send what became of items that were shown, a thousand records a request. Raises CtrClientError."""
        records = [records] if isinstance(records, Feedback) else records
        return feedback_result(
            [await self._call("POST", "feedback", body, timeout_s) for body in feedback_bodies(records)]
        )

    async def health(self, *, timeout_s: float | None = None) -> Health:
        """Return how the service is; one that is unhealthy answers too. Raises CtrClientError."""
        try:
            return health_of(await self._http.get("health", timeout=timeout_s or self._timeout_s))
        except httpx.HTTPError as error:
            raise error_from(error) from error

    async def models(self, *, timeout_s: float | None = None) -> list[Version]:
        """Return the versions in the service's model store. Raises CtrClientError."""
        return versions_of(await self._call("GET", "models", None, timeout_s))

    async def _call(self, method: str, path: str, body: bytes | None, timeout_s: float | None) -> Any:
        """Send a request, again where that helps, and return the answer's JSON."""
        steps = attempts(self._timeout_s if timeout_s is None else timeout_s, self._budget, self._attempts)
        step = next(steps)
        while True:
            if isinstance(step, Pause):
                await asyncio.sleep(step.seconds)
                step = next(steps)
                continue
            try:
                response = await self._http.request(
                    method, path, content=body, headers=timeout_headers(step.left_s), timeout=step.left_s
                )
                return content_of(response)
            except httpx.HTTPError as error:
                met = error_from(error)
            except CtrClientError as error:
                met = error
            step = steps.send(met)
