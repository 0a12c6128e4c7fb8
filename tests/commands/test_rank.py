"""`ctr rank` asks the service that the settings name, with a context."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from app.commands.rank import read_context, timing_in_words
from tests.command_line import Ctr

ANSWER = {
    "model": "deepfm",
    "version": 1,
    "items": [{"item_id": "2", "score": 0.5}],
    "degraded": [],
    "missing": {"user": False, "items": []},
}


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Collects what would have been sent."""
    requests: list[dict[str, Any]] = []

    def post(url: str, **options: Any) -> httpx.Response:
        requests.append({"url": url, **options})
        return httpx.Response(200, json=ANSWER)

    monkeypatch.setattr(httpx, "post", post)
    return requests


@pytest.mark.parametrize(
    ("environment", "url"),
    [
        ({}, "http://127.0.0.1:8000/rank"),
        ({"CTR_PORT": "9000"}, "http://127.0.0.1:9000/rank"),
        ({"CTR_HOST": "0.0.0.0", "CTR_PORT": "9000"}, "http://127.0.0.1:9000/rank"),
        ({"CTR_HOST": "ranker"}, "http://ranker:8000/rank"),
        ({"CTR_HOST": "::"}, "http://[::1]:8000/rank"),
        ({"CTR_HOST": "fe80::2"}, "http://[fe80::2]:8000/rank"),
    ],
)
def test_the_service_is_that_of_the_settings(
    ctr: Ctr, sent: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], url: str
) -> None:
    for name in ("CTR_HOST", "CTR_PORT", "CTR_API_KEYS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert ctr("rank", "1", "2")[0] == 0
    assert sent[0]["url"] == url
    assert ctr("rank", "1", "2", "--url", "http://elsewhere/x")[0] == 0
    assert sent[1]["url"] == "http://elsewhere/x/rank"


def test_a_context_and_the_key_are_sent(ctr: Ctr, sent: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CTR_API_KEYS", "first,second")
    status, _, err = ctr("rank", "1", "2", "--context", "hour=21", "--context", '{"day": "fri", "n": [1]}')
    assert status == 0, err
    assert sent[0]["json"]["context"] == {"hour": 21, "day": "fri", "n": [1]}
    assert sent[0]["headers"] == {"X-API-Key": "first"}
    assert ctr("rank", "1", "2", "--api-key", "mine")[0] == 0
    assert sent[1]["headers"] == {"X-API-Key": "mine"}
    assert "context" not in sent[1]["json"]


@pytest.mark.parametrize(
    ("options", "keys", "said"),
    [
        ((), "", "none was sent: give one of its keys with --api-key, or in CTR_API_KEYS"),
        ((), "shop=sha256:" + "0" * 64, "none was sent"),
        (("--api-key", "old"), "", "it does not know the key that was sent: give one of its keys with --api-key"),
    ],
)
def test_a_service_that_asks_for_a_key_is_said_with_how_to_give_one(
    ctr: Ctr, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], keys: str, said: str
) -> None:
    monkeypatch.setenv("CTR_API_KEYS", keys)
    problem = {
        "title": "A valid API key is required",
        "detail": "send one of the service's keys in the X-API-Key header",
    }
    monkeypatch.setattr(httpx, "post", lambda *_, **__: httpx.Response(401, json=problem))
    status, out, err = ctr("rank", "1", "2", *options)
    assert (status, out) == (1, "")
    assert said in " ".join(err.split())


def test_an_explained_answer_is_shown_as_tables(ctr: Ctr, monkeypatch: pytest.MonkeyPatch) -> None:
    explanation = {
        "logit": -1.25,
        "calibration": {"scale": 1.0, "offset": 0.0},
        "effects": [{"field": "hour", "effect": 0.5}],
        "parts": [
            {"part": "bias", "fields": [], "value": -2.0},
            {"part": "first", "fields": ["hour"], "value": 0.125},
            {"part": "pair", "fields": ["user_id", "item_id"], "value": 0.375},
            {"part": "pair", "fields": [], "value": 0.25},
        ],
    }
    without = {**explanation, "no_parts": "the logit of dcn is no sum of parts"}
    del without["parts"]
    for shown, expected in (
        (explanation, ["hour +0.50", "-2.000", "+0.125", "+0.625", "-1.250", "user_id x item_id +0.38"]),
        (without, ["hour +0.50", "the logit of dcn is no sum of parts"]),
    ):
        answer = {**ANSWER, "items": [{"item_id": "2", "score": 0.25, "explanation": shown}]}
        monkeypatch.setattr(httpx, "post", lambda *_, answer=answer, **__: httpx.Response(200, json=answer))
        monkeypatch.setenv("COLUMNS", "200")
        status, out, err = ctr("rank", "1", "2", "--explain")
        assert status == 0, err
        assert [text for text in expected if text not in out + err] == []


@pytest.mark.parametrize(("user", "said"), [("42", "the store does not know this user"), ("", "a guest: scored as")])
def test_a_guest_is_not_called_unknown(ctr: Ctr, monkeypatch: pytest.MonkeyPatch, user: str, said: str) -> None:
    answer = ANSWER | {"missing": {"user": True, "items": []}}
    monkeypatch.setattr(httpx, "post", lambda url, **_: httpx.Response(200, json=answer))
    status, out, err = ctr("rank", user, "2")
    assert status == 0
    assert said in " ".join((out + err).split())


def test_values_of_a_context_are_json_or_text() -> None:
    given = ["hour=21", "os=ios", "code=007", 'quoted="21"', "empty=", "link=a=b", ' tags =["x"]']
    read = read_context(given)
    assert read == {
        "hour": 21, "os": "ios", "code": "007", "quoted": "21", "empty": "", "link": "a=b", "tags": ["x"]
    }  # fmt: skip


def test_where_the_time_went_is_said_in_words() -> None:
    header = "decode;dur=0.126, features;dur=5.972, score;dur=3.355"
    assert timing_in_words(header) == "9.5 ms in the service (decode 0.1, features 6.0, score 3.4)"
    assert timing_in_words("") == "", "a proxy may take the header away"


def test_propensities_are_shown_where_the_order_was_drawn(ctr: Ctr, monkeypatch: pytest.MonkeyPatch) -> None:
    items = [{"item_id": "2", "score": 0.25, "propensity": 0.125}, {"item_id": "1", "score": 0.5}]
    answer = {**ANSWER, "items": items, "exploration": {"policy": "softmax", "parameter": 0.05}}
    monkeypatch.setattr(httpx, "post", lambda url, **options: httpx.Response(200, json=answer))
    _, out, err = ctr("rank", "1", "2", "1")
    assert [line.split("\t") for line in out.splitlines()] == [
        ["", "item", "probability", "propensity"],
        ["1", "2", "0.2500", "0.1250"],
        ["2", "1", "0.5000", ""],
    ]
    assert "drawn by softmax:0.05" in err
