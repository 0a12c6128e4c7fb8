"""What both clients make of every sort of answer, and when they try again."""

from __future__ import annotations

import asyncio
import inspect
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from ctr_client import (
    AsyncCtrClient,
    CtrClient,
    CtrClientError,
    Feedback,
    Refused,
    RetryBudget,
    TimedOut,
    Unavailable,
    Unreachable,
)
from ctr_client.retries import Attempt, Pause, attempts

RANKED = {
    "request_id": "r1",
    "model": "deepfm",
    "version": 7,
    "label": "stable",
    "items": [{"item_id": "2", "score": 0.5}, {"item_id": "1", "score": 0.25}],
    "degraded": ["stale_item_features"],
    "missing": {"user": True, "items": ["1"]},
    "ignored": ["context.huor"],
}
PROBLEM = {
    "type": "urn:ctr-serving:problem:invalid-request",
    "title": "no",
    "detail": "item_ids: empty",
    "request_id": "abc",
    "errors": [{"location": "item_ids", "message": "empty"}],
}
Answer = httpx.Response | Exception


class Service:
    """Gives prepared answers, and keeps what it was sent."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer.status_code, content=answer.content, headers=answer.headers)


def ok(document: Any = RANKED, status: int = 200, **headers: str) -> httpx.Response:
    return httpx.Response(status, json=document, headers=headers)


def busy(retry_after: str = "0") -> httpx.Response:
    return httpx.Response(503, json={"title": "too much to do"}, headers={"Retry-After": retry_after})


Call = Callable[[Any], Any]
Runner = Callable[..., Any]


@pytest.fixture(params=["threads", "asyncio"])
def run(request: pytest.FixtureRequest) -> Iterator[Runner]:
    """Return what runs a call on either client, over a service of prepared answers."""

    def run_call(service: Service, call: Call, **options: Any) -> Any:
        transport: Any = httpx.MockTransport(service)
        if request.param == "threads":
            with CtrClient("http://service/ctr", transport=transport, **options) as client:
                return call(client)

        async def run_async() -> Any:
            async with AsyncCtrClient("http://service/ctr", transport=transport, **options) as client:
                return await call(client)

        return asyncio.run(run_async())

    return run_call


def test_a_ranking_has_all_that_the_answer_says(run: Runner) -> None:
    service = Service(ok())
    ranking = run(service, lambda client: client.rank("42", [2, "1"], context={"hour": 3}, top_k=2), api_key="secret")
    assert [(item.item_id, item.score) for item in ranking.items] == [("2", 0.5), ("1", 0.25)]
    assert (ranking.version, ranking.label, ranking.degraded) == (7, "stable", ("stale_item_features",))
    assert (ranking.missing_user, ranking.missing_items, ranking.ignored) == (True, ("1",), ("context.huor",))
    [sent] = service.requests
    assert sent.url == "http://service/ctr/rank"
    assert json.loads(sent.content) == {"user_id": "42", "item_ids": [2, "1"], "context": {"hour": 3}, "top_k": 2}
    assert sent.headers["X-API-Key"] == "secret"
    assert 900 < float(sent.headers["X-Request-Timeout-Ms"]) <= 1000


def test_a_guest_is_a_request_without_a_user(run: Runner) -> None:
    service = Service(ok())
    run(service, lambda client: client.rank(None, ["1"]))
    assert "user_id" not in json.loads(service.requests[0].content)


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        (ok(PROBLEM, 422), Refused, "item_ids"),
        (ok(PROBLEM, 401), Refused, "401"),
        (ok({"title": "late"}, 504), TimedOut, "late"),
        (httpx.Response(404, text="<html>"), Refused, "404"),
        (httpx.Response(200, text="<html>"), Refused, "200"),
        (httpx.ReadTimeout("slow"), TimedOut, "in time"),
    ],
)
def test_a_final_answer_is_not_asked_for_again(
    run: Runner, answer: Answer, kind: type[CtrClientError], said: str
) -> None:
    service = Service(answer)
    with pytest.raises(kind, match=said) as raised:
        run(service, lambda client: client.rank("1", ["1"]))
    assert len(service.requests) == 1
    if isinstance(raised.value, Refused) and raised.value.status == 422:
        assert raised.value.errors == [("item_ids", "empty")]
        assert (raised.value.problem, raised.value.request_id) == ("invalid-request", "abc")


@pytest.mark.parametrize(
    "first", [busy(), ok({}, 429), httpx.Response(502, text="bad gateway"), httpx.ConnectError("no"),
              httpx.RemoteProtocolError("server disconnected"), httpx.ReadError("reset")]
)  # fmt: skip
def test_what_may_pass_is_tried_again(run: Runner, first: Answer) -> None:
    service = Service(first, ok())
    assert run(service, lambda client: client.rank("1", ["1"])).version == 7
    assert len(service.requests) == 2


def test_retries_end_with_the_last_error(run: Runner) -> None:
    service = Service(*[busy()] * 3)
    with pytest.raises(Unavailable):
        run(service, lambda client: client.rank("1", ["1"]))
    assert len(service.requests) == 3
    service = Service(*[httpx.ConnectError("refused")] * 2)
    with pytest.raises(Unreachable, match="refused"):
        run(service, lambda client: client.rank("1", ["1"]), attempts=2)


def test_a_wait_longer_than_what_is_left_is_not_begun(run: Runner) -> None:
    service = Service(busy("3"))
    began = time.monotonic()
    with pytest.raises(Unavailable) as raised:
        run(service, lambda client: client.rank("1", ["1"], timeout_s=2.5))
    assert time.monotonic() - began < 2
    assert raised.value.retry_after_s == 3


def test_an_empty_budget_ends_retries_for_all_calls(run: Runner) -> None:
    budget = RetryBudget(share=0.0, reserve=2)
    service = Service(*[busy()] * 5)
    for _ in range(3):
        with pytest.raises(Unavailable):
            run(service, lambda client: client.rank("1", ["1"]), budget=budget, attempts=2)
    assert len(service.requests) == 5, "two calls were tried again, the third was not"


def test_calls_earn_retries() -> None:
    budget = RetryBudget(share=0.25, reserve=1)
    assert budget.spend()
    assert not budget.spend()
    for _ in range(4):
        budget.earn()
    assert budget.spend()


def test_each_attempt_has_what_is_left_of_the_time() -> None:
    now = [0.0]
    steps = attempts(1.0, RetryBudget(), 3, lambda: now[0])
    first = next(steps)
    assert first == Attempt(1.0)
    now[0] = 0.3
    pause = steps.send(Unavailable("busy"))
    assert isinstance(pause, Pause)
    now[0] += pause.seconds
    assert next(steps) == Attempt(pytest.approx(0.7 - pause.seconds))
    now[0] = 2.0
    with pytest.raises(Unreachable):
        steps.send(Unreachable("gone"))


def test_feedback_goes_in_parts_and_errors_keep_their_places(run: Runner) -> None:
    def result(accepted: int, *errors: int) -> httpx.Response:
        refused = [{"index": index, "message": "no"} for index in errors]
        return ok({"accepted": accepted, "rejected": len(errors), "errors": refused}, 202)

    service = Service(result(999, 4), result(500))
    records = [Feedback("r", str(number)) for number in range(1500)]
    result_ = run(service, lambda client: client.feedback(records))
    assert (result_.accepted, result_.rejected, result_.errors) == (1499, 1, ((4, "no"),))
    sent = [record for request in service.requests for record in json.loads(request.content)]
    assert [record["item_id"] for record in sent] == [str(number) for number in range(1500)]
    assert len({record["id"] for record in sent}) == 1500, "so that a retry counts once"


def test_health_answers_where_the_service_is_unhealthy(run: Runner) -> None:
    service = Service(ok({"status": "unhealthy", "reasons": ["no_model"]}, 503))
    health = run(service, lambda client: client.health())
    assert (health.status, health.reasons) == ("unhealthy", ("no_model",))
    with pytest.raises(CtrClientError):
        run(Service(httpx.Response(200, text="hello")), lambda client: client.health())
    with pytest.raises(Unreachable):
        run(Service(httpx.ConnectError("no")), lambda client: client.health())


def test_both_clients_have_the_same_calls() -> None:
    for name, method in inspect.getmembers(CtrClient, inspect.isfunction):
        if name.startswith("__") and name != "__init__":
            continue
        twin = getattr(AsyncCtrClient, name)
        wanted = str(inspect.signature(method)).replace("BaseTransport", "AsyncBaseTransport")
        assert str(inspect.signature(twin)) == wanted, name


def test_it_imports_httpx_alone() -> None:
    folder = Path(__file__).parents[2] / "client" / "ctr_client"
    imported = {
        line.split()[1].partition(".")[0]
        for path in folder.glob("*.py")
        for line in path.read_text().splitlines()
        if line.startswith(("import ", "from "))
    }
    assert not imported & {"app", "torch", "numpy", "pydantic", "msgspec", "orjson"}
    assert "httpx" in imported
