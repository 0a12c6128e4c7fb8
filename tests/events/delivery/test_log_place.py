"""What CTR_EVENTS means: a folder, a bucket or a stream, and nothing that programs read in different ways."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.errors import ConfigError
from app.events.delivery.log_place import LogPlace, log_place


@pytest.mark.parametrize("text", ["events", "/srv/events", "./a b/c", "s3", "C:events"])
def test_what_has_no_scheme_is_a_folder(text: str) -> None:
    assert log_place(text) == LogPlace("folder", Path(text))


def test_buckets_have_a_prefix_or_none() -> None:
    assert log_place("s3://shop/ctr/events/") == LogPlace("bucket", url="s3://shop/ctr/events")
    assert str(log_place("s3://shop")) == "s3://shop"


@pytest.mark.parametrize(
    ("text", "server", "stream"),
    [
        ("redis://localhost:6379/ctr-events", "redis://localhost:6379", "ctr-events"),
        ("redis://localhost/3/ctr:events", "redis://localhost/3", "ctr:events"),
        (
            "rediss://:p%40s@host/0/events?ssl_cert_reqs=none",
            "rediss://:p%40s@host/0?ssl_cert_reqs=none",
            "events",
        ),
        ("redis+sentinel://a:1,b:2/main/events", "redis+sentinel://a:1,b:2/main", "events"),
        ("redis+cluster://a:1,b:2/events", "redis+cluster://a:1,b:2", "events"),
    ],
)
def test_a_stream_is_named_behind_its_server(text: str, server: str, stream: str) -> None:
    place = log_place(text)
    assert (place.kind, place.url, place.stream) == ("stream", server, stream)
    assert "p@s" not in str(place)
    assert stream in str(place)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("s3://", "s3://BUCKET/PREFIX"),
        ("s3://KEY:secret@bucket/x", "s3://BUCKET/PREFIX"),
        ("s3://UPPER/x", "s3://BUCKET/PREFIX"),
        ("redis://localhost:6379", "STREAM"),
        ("redis://localhost:6379/0", "STREAM"),
        ("redis://:secret@localhost:port/events", "port"),
        ("kafka://host/topic", "kafka:// is no place"),
        ("gs://bucket/x", "gs:// is no place"),
    ],
)
def test_what_has_no_meaning_is_refused_without_a_secret(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as raised:
        log_place(text)
    assert "secret" not in str(raised.value)
