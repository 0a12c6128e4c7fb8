"""The body of /rank: whatever is sent either parses or is refused with a small clear reason."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.api.problems import problem_response
from app.api.schemas import parse_rank
from app.errors import InvalidRequest, NotJson
from app.ranking.request import RankRequest

LIMIT = 2000
DEEP = 100_000


def parse(**fields: Any) -> RankRequest:
    return parse_rank(json.dumps({"user_id": "42", "item_ids": ["10", "20"], **fields}).encode(), LIMIT)


def with_field(name: str, value: str) -> bytes:
    """A body that is right but for one field, given as JSON text."""
    fields = {"user_id": '"42"', "item_ids": '["10"]', name: value}
    return b"{" + b",".join(f'"{key}":{text}'.encode() for key, text in fields.items()) + b"}"


def test_the_smallest_body() -> None:
    assert parse() == RankRequest("42", ["10", "20"])


def test_the_body_of_the_contract() -> None:
    body = parse(
        context={"hour": 21},
        user_features={"tags": ["a", 1, None], "weights": {"Drama": 3.0}, "flag": True, "age": 25.5},
        item_features={"10": {}, "20": {"year": None}},
        top_k=50,
        model="stable",
        explain=True,
        request_id="abc",
    )
    assert body.context == {"hour": 21}
    assert body.user_features == {"tags": ["a", 1, None], "weights": {"Drama": 3.0}, "flag": True, "age": 25.5}
    assert body.item_features == {"10": {}, "20": {"year": None}}
    assert (body.top_k, body.model, body.explain, body.request_id) == (50, "stable", True, "abc")


def test_ids_written_as_integers_are_decimal_strings() -> None:
    body = parse(user_id=42, item_ids=[10, "20", -3, 2**63 - 1])
    assert body.user_id == "42"
    assert body.item_ids == ["10", "20", "-3", "9223372036854775807"]


def test_ids_and_features_of_64_bits_without_a_sign() -> None:
    largest = 2**64 - 1
    body = parse(user_id=largest, item_ids=[2**63, largest, "1"], context={"a": largest, "b": [largest]})
    assert body.user_id == str(largest)
    assert body.item_ids == [str(2**63), str(largest), "1"]
    assert body.context == {"a": largest, "b": [largest]}


def test_an_integer_may_be_written_as_json_schema_allows() -> None:
    body = parse(user_id=42.0, item_ids=[10.0, "20", 3, 1e3, -0.0], top_k=5.0, model=7.0)
    assert (body.user_id, body.top_k, body.model) == ("42", 5, 7)
    assert body.item_ids == ["10", "20", "3", "1000", "0"]
    assert parse(item_ids=["1.0", "7.50"]).item_ids == ["1.0", "7.50"], "a text is the id that it is"


@pytest.mark.parametrize("user", [{}, {"user_id": None}, {"user_id": ""}])
@pytest.mark.parametrize("more", [{}, {"context": None}], ids=["plain", "fully parsed"])
def test_a_guest_has_no_id(user: dict[str, Any], more: dict[str, Any]) -> None:
    requests = [parse_rank(json.dumps({"item_ids": ["1"], **user, **more}).encode(), LIMIT) for _ in range(20)]
    assert {request.user_id for request in requests} == {None}
    assert len({request.guest_arm for request in requests}) == 20
    assert all(0 <= request.guest_arm < 1 for request in requests)
    assert parse_rank(b'{"user_id":" ","item_ids":["1"]}', LIMIT).user_id == " ", "no guest: blanks are an id"


@pytest.mark.parametrize("body", [{"user_id": "é", "item_ids": ["1", "ü"]}, {"user_id": 1, "item_ids": [1.0]}])
def test_a_byte_order_mark_is_skipped(body: dict[str, Any]) -> None:
    raw = json.dumps(body, ensure_ascii=False).encode()
    assert parse_rank(b"\xef\xbb\xbf" + raw, LIMIT) == parse_rank(raw, LIMIT)
    with pytest.raises(NotJson):
        parse_rank(b"\xef\xbb\xbf" * 3 + raw, LIMIT)


def test_of_a_name_that_comes_twice_the_last_counts() -> None:
    body = b'{"user_id":"1","user_id":"2","item_ids":["1"],"item_ids":["2","3"],"context":{"a":1,"a":2}}'
    assert parse_rank(body, LIMIT) == RankRequest("2", ["2", "3"], {"a": 2})


@pytest.mark.parametrize(
    ("raw", "advice"),
    [
        (b"", "the body is empty; send one such as"),
        (b" \r\n", "the body is empty"),
        ('{"user_id":"1","item_ids":["1"]}'.encode("utf-16"), "UTF-8"),
        ('{"user_id":"1","item_ids":["1"]}'.encode("utf-16-be"), "UTF-8"),
        (b"\x1f\x8b\x08\x00", "Content-Encoding: gzip"),
        (b"user_id=1&item_ids=2", "a form; send JSON"),
        (b"--boundary\r\nContent-Disposition: form-data", "a form; send JSON"),
        (b"{'user_id': '1'}", "double quotes"),
        (b'{"user_id":"1","item_ids":["1"]}x', "byte 33"),
    ],
)
def test_what_is_not_json_is_told_what_to_do(raw: bytes, advice: str) -> None:
    with pytest.raises(NotJson) as refused:
        parse_rank(raw, LIMIT)
    assert advice in str(refused.value)


def test_a_misspelt_field_is_given_the_nearest() -> None:
    for written, meant in (("userid", "user_id"), ("item_id", "item_ids"), ("topk", "top_k"), ("huor", None)):
        with pytest.raises(InvalidRequest) as refused:
            parse(**{written: 1})
        assert str(refused.value) == f"unknown field '{written}'" + (f"; did you mean '{meant}'?" if meant else "")


def test_order_and_duplicates_are_kept() -> None:
    assert parse(item_ids=["b", "a", "b"]).item_ids == ["b", "a", "b"]


def test_null_is_the_same_as_left_out() -> None:
    names = ("context", "user_features", "item_features", "top_k", "model", "explain", "request_id")
    assert parse(**dict.fromkeys(names)) == parse()
    assert parse(item_features={"10": None}).item_features == {"10": {}}


def test_two_requests_never_share_their_defaults() -> None:
    parse().context["hour"] = 21
    assert parse().context == {}


@pytest.mark.parametrize(("sent", "read"), [("7", 7), (7, 7), ("canary", "canary"), ("7a", "7a"), ("٧", "٧")])
def test_a_model_is_a_label_or_a_version(sent: object, read: object) -> None:
    assert parse(model=sent).model == read


def test_text_beyond_ascii_survives() -> None:
    assert parse(user_id="ü😀\x00").user_id == "ü😀\x00"


NOT_JSON = {
    "empty": b"",
    "nan": with_field("context", '{"a":NaN}'),
    "infinity": with_field("context", '{"a":-Infinity}'),
    "nan as an id": with_field("user_id", "NaN"),
    "lone surrogate in an id": with_field("user_id", r'"\ud800"'),
    "lone low surrogate": with_field("item_ids", r'["\udc00x"]'),
    "lone surrogate in a key": with_field("context", r'{"\ud800":1}'),
    "lone surrogate in a value": with_field("context", r'{"a":"x\ud800"}'),
    "surrogate in utf-8": b'{"user_id":"\xed\xa0\x80","item_ids":["1"]}',
    "not utf-8": b'{"user_id":"\xff","item_ids":["1"]}',
    "utf-16": '{"user_id":"1","item_ids":["1"]}'.encode("utf-16"),
    "cut off": b'{"user_id":"1","item_ids":["1"',
    "trailing": with_field("explain", "true") + b"x",
    "two documents": b"{}{}",
    "wrong type, then broken": b'{"user_id":1.5,"item_ids":["1"],]',
    "form": b"user_id=1&item_ids=2",
    "python": b"{'user_id': '1'}",
    "comment": b'{"user_id":"1",/*x*/"item_ids":["1"]}',
}
MISFITS = {
    "null": (b"null", "body"),
    "list": (b"[]", "body"),
    "text": (b'"user"', "body"),
    "no items": (b'{"user_id":"1"}', "body"),
    "null items": (with_field("item_ids", "null"), "item_ids"),
    "no candidates": (with_field("item_ids", "[]"), "item_ids"),
    "too many candidates": (with_field("item_ids", json.dumps(["1"] * (LIMIT + 1))), "item_ids"),
    "100,000 ids": (with_field("item_ids", json.dumps([str(n) for n in range(100_000)])), "item_ids"),
    "100,000 integers": (with_field("item_ids", json.dumps(list(range(100_000)))), "item_ids"),
    "one id": (with_field("item_ids", '"1"'), "item_ids"),
    "a float": (with_field("item_ids", "[1.5]"), "item_ids[0]"),
    "a float beyond exactness": (with_field("item_ids", "[1, 1e16]"), "item_ids[1]"),
    "a user of a float": (with_field("user_id", "1.5"), "user_id"),
    "a boolean": (with_field("item_ids", '["1", true]'), "item_ids[1]"),
    "a null": (with_field("item_ids", '["1", 2, null]'), "item_ids[2]"),
    "nested": (with_field("item_ids", '[["1"]]'), "item_ids[0]"),
    "an empty id": (with_field("item_ids", '["1", ""]'), "item_ids[1]"),
    "a long id": (with_field("item_ids", json.dumps(["x" * 257])), "item_ids[0]"),
    "a long user": (with_field("user_id", json.dumps("x" * 257)), "user_id"),
    "2**64": (with_field("user_id", str(2**64)), "user_id"),
    "2**64 as an item": (with_field("item_ids", f'["1", {2**64}]'), "item_ids[1]"),
    "400 digits": (with_field("item_ids", f"[{'9' * 400}]"), "item_ids[0]"),
    "10,000 digits": (with_field("item_ids", f"[{'9' * 10_000}]"), "item_ids[0]"),
    "2**64 as a feature": (with_field("context", f'{{"a":{2**64}}}'), "context[...]"),
    "2**64 in a list": (with_field("user_features", f'{{"a":[1,{2**64}]}}'), "user_features[...][1]"),
    "2**64 of an item": (with_field("item_features", f'{{"1":{{"a":{2**64}}}}}'), "item_features[...][...]"),
    "1e999": (with_field("context", '{"a":1e999}'), "context[...]"),
    "1e999 in a list": (with_field("user_features", '{"a":[1,-1e999]}'), "user_features[...][1]"),
    "1e999 as a weight": (with_field("user_features", '{"a":{"x":1e999}}'), "user_features[...][...]"),
    "1e999 as an id": (with_field("user_id", "1e999"), "user_id"),
    "context of a list": (with_field("context", "[1]"), "context"),
    "a list in a list": (with_field("context", '{"a":[[1]]}'), "context[...][0]"),
    "a weight of text": (with_field("context", '{"a":{"x":"1"}}'), "context[...][...]"),
    "flat item features": (with_field("item_features", '{"10":1}'), "item_features[...]"),
    "an empty key": (with_field("item_features", '{"":{}}'), "item_features"),
    "long text": (with_field("context", json.dumps({"a": "x" * 4097})), "context[...]"),
    "many features": (with_field("context", json.dumps({str(n): n for n in range(1001)})), "context"),
    "a long list": (with_field("context", json.dumps({"a": list(range(1001))})), "context[...]"),
    "top_k of 0": (with_field("top_k", "0"), "top_k"),
    "top_k of 1.5": (with_field("top_k", "1.5"), "top_k"),
    "top_k of true": (with_field("top_k", "true"), "top_k"),
    "top_k of text": (with_field("top_k", '"5"'), "top_k"),
    "top_k of 2**64": (with_field("top_k", str(2**64)), "top_k"),
    "explain of 1": (with_field("explain", "1"), "explain"),
    "explain of text": (with_field("explain", '"yes"'), "explain"),
    "a model of nothing": (with_field("model", '""'), "model"),
    "a negative version": (with_field("model", "-1"), "model"),
    "a long label": (with_field("model", json.dumps("x" * 65)), "model"),
    "a header in the request id": (with_field("request_id", r'"a\r\nSet-Cookie: x"'), "request_id"),
    "a newline after the request id": (with_field("request_id", r'"a\n"'), "request_id"),
    "a long request id": (with_field("request_id", json.dumps("a" * 129)), "request_id"),
    "a typo": (with_field("topk", "5"), "body"),
    "100,000 brackets": (b"[" * DEEP + b"]" * DEEP, "body"),
    "100,000 open brackets": (b"[" * DEEP, "body"),
    "100,000 objects": (b'{"context":' * DEEP + b"1" + b"}" * DEEP, "context[...][...]"),
    "100,000 brackets inside": (with_field("context", '{"a":' + "[" * DEEP + "]" * DEEP + "}"), "context[...][0]"),
    "100,000 brackets in an unknown field": (with_field("x", "[" * DEEP + "]" * DEEP), "body"),
}


@pytest.mark.parametrize("raw", NOT_JSON.values(), ids=NOT_JSON)
def test_what_is_not_json_is_a_400(raw: bytes) -> None:
    with pytest.raises(NotJson, match="expected one JSON object"):
        parse_rank(raw, LIMIT)


@pytest.mark.parametrize(("raw", "location"), MISFITS.values(), ids=MISFITS)
def test_json_that_does_not_fit_is_a_422_that_says_where(raw: bytes, location: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_rank(raw, LIMIT)
    assert [where for where, _ in refused.value.errors] == [location]
    assert len(str(refused.value)) < 200, "the reason is short and does not repeat the input"


def test_an_unknown_field_is_named_briefly_and_printably() -> None:
    with pytest.raises(InvalidRequest, match="unknown field 'topk'"):
        parse(topk=5)
    with pytest.raises(InvalidRequest) as refused:
        parse(**{"\x1b[31m" + "z" * 5000: 1})
    assert len(str(refused.value)) < 100
    assert str(refused.value).isprintable()


def test_values_of_the_client_are_not_repeated() -> None:
    for fields in ({"user_id": ["canary-secret"]}, {"context": {"a": ["canary-secret", []]}}, {"model": "secret" * 20}):
        with pytest.raises(InvalidRequest) as refused:
            parse(**fields)
        assert "secret" not in str(refused.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
names = st.sampled_from(
    ["user_id", "item_ids", "context", "user_features", "item_features", "top_k", "model", "explain", "request_id", "x"]
)
ids = st.text(min_size=1, max_size=4) | st.integers()
near_requests = st.builds(
    lambda user_id, item_ids, rest: {"user_id": user_id, "item_ids": item_ids, **rest},
    ids,
    st.lists(ids, min_size=1, max_size=4),
    st.dictionaries(names, json_values, max_size=3),
)


def check_any(raw: bytes) -> None:
    try:
        body = parse_rank(raw, LIMIT)
    except (NotJson, InvalidRequest) as error:
        refusal = problem_response(error, "id")
    else:
        msgspec.json.encode(body, enc_hook=list)  # nothing that could not be sent on: no lone surrogates, no NaN
        assert body.user_id is None or body.user_id
        assert all(item_id.__class__ is str and item_id for item_id in body.item_ids)
        json.loads(raw.removeprefix(b"\xef\xbb\xbf"))
        return
    assert len(refusal.body) <= 4096


@given(st.binary())
@example(b'{"user_id":"\\ud83d\\ude00","item_ids":["1"]}')
def test_any_bytes_parse_or_are_refused(raw: bytes) -> None:
    check_any(raw)


@given(near_requests, st.booleans())
def test_anything_like_a_request_parses_or_is_refused(request: Any, ascii_only: bool) -> None:
    check_any(json.dumps(request, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass"))


@given(near_requests, st.data())
def test_a_damaged_request_parses_or_is_refused(request: Any, data: st.DataObject) -> None:
    raw = bytearray(json.dumps(request).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    check_any(bytes(raw))
