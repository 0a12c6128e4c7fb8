"""One meaning of `CTR_REDIS_URL`, or one line that refuses it and shows nothing of a password."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.connection import parse_url

from app.errors import ConfigError
from app.redis_url import RedisUrl, parse_redis_url
from app.redis_url_options import TlsOptions
from app.settings import load_settings

MEANINGS = {
    "redis://store": RedisUrl("store"),
    "  redis://store:7000/3\n": RedisUrl("store", 7000, database=3),
    "redis://store/": RedisUrl("store"),
    "redis://store:6379/3/": RedisUrl("store", database=3),
    "redis://store?db=3": RedisUrl("store", database=3),
    "redis://store/3?db=3": RedisUrl("store", database=3),
    "REDIS://store": RedisUrl("store"),
    "valkey://store": RedisUrl("store"),
    "valkeys://store": RedisUrl("store", tls=TlsOptions()),
    "rediss://store": RedisUrl("store", tls=TlsOptions()),
    "redis://[::1]:7000/1": RedisUrl("::1", 7000, database=1),
    "redis://[2001:db8::7]": RedisUrl("2001:db8::7"),
    "redis://redis_1.ctr.svc.cluster.local.": RedisUrl("redis_1.ctr.svc.cluster.local."),
    "redis://:secret@store": RedisUrl("store", password="secret"),
    "redis://ann:secret@store": RedisUrl("store", username="ann", password="secret"),
    "redis://ann:a:b@store": RedisUrl("store", username="ann", password="a:b"),
    "redis://ann:@store": RedisUrl("store", username="ann", password=""),
    "redis://:@store": RedisUrl("store"),
    "redis://@store": RedisUrl("store"),
    "redis://:%23%2F%40%3A%25%3F@store": RedisUrl("store", password="#/@:%?"),
    "redis://:p+w@store": RedisUrl("store", password="p+w"),
    "redis://store?username=ann&password=p%2Bw": RedisUrl("store", username="ann", password="p+w"),
    "redis://store?protocol=2": RedisUrl("store", protocol=2),
    "redis://store?protocol=3": RedisUrl("store", protocol=3),
    "redis+cluster://a,b:7000,[::1]:7001": RedisUrl("", 0, cluster_nodes=(("a", 6379), ("b", 7000), ("::1", 7001))),
    "rediss+cluster://:secret@a/0": RedisUrl("", 0, password="secret", tls=TlsOptions(), cluster_nodes=(("a", 6379),)),
    "redis+sentinel://a,b:7000,[::1]/mymaster": RedisUrl(
        "", 0, service="mymaster", sentinels=(("a", 26379), ("b", 7000), ("::1", 26379))
    ),
    "rediss+sentinel://ann:secret@a/my.master/3?sentinel_password=other": RedisUrl(
        "",
        0,
        database=3,
        username="ann",
        password="secret",
        tls=TlsOptions(),
        service="my.master",
        sentinels=(("a", 26379),),
        sentinel_password="other",
    ),
    "unix:///run/redis.sock": RedisUrl(path="/run/redis.sock"),
    "unix:///run/redis.sock?db=3": RedisUrl(path="/run/redis.sock", database=3),
    "unix://:secret@/run/redis.sock": RedisUrl(path="/run/redis.sock", password="secret"),
    "rediss://store?ssl_ca_certs=/etc/ca.pem&ssl_check_hostname=false": RedisUrl(
        "store", tls=TlsOptions(ca_certs="/etc/ca.pem", check_hostname=False)
    ),
    "rediss://store?ssl_cert_reqs=none": RedisUrl("store", tls=TlsOptions(verify=False, check_hostname=False)),
    "rediss://store?ssl_cert_reqs=CERT_REQUIRED&ssl_min_version=TLSv1.3": RedisUrl(
        "store", tls=TlsOptions(min_version="TLSv1_3")
    ),
    "rediss://store?ssl_certfile=a.pem&ssl_keyfile=a.key&ssl_password=x": RedisUrl(
        "store", tls=TlsOptions(certfile="a.pem", keyfile="a.key", password="x")
    ),
    "rediss://store?ssl_ca_data=a%0Ab+c": RedisUrl("store", tls=TlsOptions(ca_data="a\nb+c")),
}
REFUSED = {
    "localhost:6379": "write redis://localhost:6379",
    "localhost": "write redis://localhost,",
    "store.example:6379/3": "write redis://store.example:6379/3",
    "/run/redis.sock": "write unix:///run/redis.sock",
    "'redis://store'": "quotation mark",
    "redis:store": "no scheme",
    "ann:SECRET@store": "no scheme",
    "SECRET": "no scheme",
    "http://store": "scheme",
    "redis+socket:///run/redis.sock": "write unix://",
    "redis+ssl://store": "write rediss://",
    "redis+cluster://a:1/3": "database 0",
    "redis+cluster://": "no host",
    "redis+cluster://a,": "no host",
    "redis+cluster://a?ssl_ca_certs=x": "rediss+cluster://",
    "redis+cluster://a?sentinel_password=secret": "redis+sentinel://",
    "cluster://a": "redis+cluster://",
    "redis-cluster://a": "redis+cluster://",
    "redis+sentinel://a:26379": "service",
    "redis+sentinel://a:26379/": "service",
    "redis+sentinel://a,,b/mymaster": "no host",
    "redis+sentinel://a/mymaster/x": "database",
    "redis+sentinel://a/mymaster?ssl_ca_certs=x": "rediss+sentinel://",
    "sentinel://a/mymaster": "redis+sentinel://",
    "redis://a?sentinel_password=secret": "redis+sentinel://",
    "redis://": "no host",
    "redis:///0": "no host",
    "redis://:6379": "no host",
    "redis://:SECRET@": "no host",
    "redis://store:": "port",
    "redis://store:0": "port",
    "redis://store:65536": "port",
    "redis://store:SECRET": "port",
    "redis://store:6379a": "port",
    "redis://store:٣": "port",
    "redis://tcp://10.0.0.1:6379": "port",
    "redis://a:6379,b:6379": "several hosts",
    "redis://::1:6379": "brackets",
    "redis://[::1": "IPv6",
    "redis://[store]": "IPv6",
    "redis://${HOST}:6379": "host",
    "redis://st ore": "space",
    "redis://store\n:6379": "space",
    "redis://store/prod": "database",
    "redis://store/SECRET": "database",
    "redis://store/-1": "database",
    "redis://store/0/1": "database",
    "redis://store?db=prod": "database",
    "redis://store/1?db=2": "different databases",
    "redis://:19101#tail@host": "#",
    "redis://:SEC#RET@store": "#",
    "redis://store#0": "#",
    "redis://:SEC/RET@store": "%2F",
    "redis://:SEC?RET@store": "%3F",
    "redis://:SEC@RET@store": "%40",
    "redis://:SEC/RET": "no host",
    "redis://:SEC%RET@store": "%25",
    "redis://:SECRET%@store": "%25",
    "redis://:%ff@store": "UTF-8",
    "redis://SECRET@store": "without a password",
    "redis://ann:SECRET@store?password=SECRET": "twice",
    "redis://store?password=SEC+RET": "%2B",
    "redis://store?ssl=true": "rediss://",
    "rediss://store?ssl=false": "rediss://",
    "redis://store?tls=true": "rediss://",
    "redis://store?ssl_ca_certs=/etc/ca.pem": "rediss://",
    "unix:///run/redis.sock?ssl_ca_certs=/etc/ca.pem": "no TLS",
    "rediss://store?ssl_ca_cert=/etc/ca.pem": "did you mean ssl_ca_certs?",
    "rediss://store?ssl_check_hostnames=false": "did you mean ssl_check_hostname?",
    "rediss://store?ssl_check_hostname=maybe": "ssl_check_hostname",
    "rediss://store?ssl_cert_reqs=off": "ssl_cert_reqs",
    "rediss://store?ssl_min_version=1.1": "ssl_min_version",
    "rediss://store?ssl_keyfile=a.key": "ssl_certfile",
    "rediss://store?ssl_ca_certs=": "no value",
    "rediss://store?ssl_ca_certs": "no value",
    "redis://store?db=1&db=1": "twice",
    "redis://store?socket_timeout=1": "CTR_REDIS_TIMEOUT_MS",
    "redis://store?decode_responses=true": "not known",
    "redis://store?SECRET": "NAME=VALUE",
    "redis://store?protocol=4": "protocol",
    "unix://run/redis.sock": "three slashes",
    "unix://": "three slashes",
}


@pytest.mark.parametrize("url", MEANINGS)
def test_a_url_has_one_meaning(url: str) -> None:
    assert parse_redis_url(url) == MEANINGS[url]


@pytest.mark.parametrize("url", REFUSED)
def test_what_has_no_one_meaning_is_refused_in_a_line_without_any_part_of_a_password(url: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        parse_redis_url(url)
    message = str(refusal.value)
    assert REFUSED[url] in message
    assert "\n" not in message
    assert len(message) < 250
    assert not any(part in message for part in ("SEC", "RET", "19101", "tail"))


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=12), st.text("ab:@/#?%&+ é", min_size=1, max_size=12))
def test_what_is_encoded_is_what_it_was_and_the_same_to_redis_py(username: str, password: str) -> None:
    url = f"redis://{quote(username, safe='')}:{quote(password, safe='')}@store:7000/3"
    meaning = parse_redis_url(url)
    assert (meaning.username, meaning.password) == (username, password)
    theirs = parse_url(url)
    assert (theirs.get("username", ""), theirs.get("password")) == (username, password)
    assert (theirs["host"], theirs["port"], theirs["db"]) == (meaning.host, meaning.port, meaning.database)


@given(st.text("ab:@/#?%&[]{}\\ \n\"'", min_size=1, max_size=12))
def test_a_password_that_is_not_encoded_is_read_as_it_is_or_refused(password: str) -> None:
    with contextlib.suppress(ConfigError):
        meaning = parse_redis_url(f"redis://:{password}@store:7000")
        assert (meaning.host, meaning.port, meaning.database) == ("store", 7000, 0)
        assert meaning.password == unquote(password)


def test_the_words_for_it_hold_no_password() -> None:
    meaning = parse_redis_url("rediss://ann:hunter2@[::1]:7000/3?ssl_certfile=a.pem&ssl_password=hunter3")
    assert str(meaning) == "[::1]:7000, database 3, user ann, with TLS"
    assert "hunter" not in repr(meaning)
    assert str(parse_redis_url("unix:///run/redis.sock")) == "the socket /run/redis.sock, database 0, without TLS"


def test_the_setting_is_checked_when_it_is_read() -> None:
    assert load_settings(redis_url=" redis://store \n").redis_url == "redis://store"
    assert load_settings(redis_url="").redis_url == load_settings(redis_url=" \n").redis_url == ""
    with pytest.raises(ConfigError, match=r"^CTR_REDIS_URL: there is a '#' in it; [^\n]*$"):
        load_settings(redis_url="redis://:a#b@store")


COMMANDS = {
    "serve": ("serve", "--port", "0"),
    "several workers": ("serve", "--port", "0", "--workers", "2"),
    "load": ("load", "items", "items.jsonl"),
    "promote": ("promote", "1"),
}
WRONG = ["localhost:6379", "redis://:hun#ter@store", "rediss://store?ssl_ca_certs=missing.pem"]
SOME = [("several workers", WRONG[2]), ("load", WRONG[0])]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "url"),
    [
        pytest.param(command, url, marks=[] if (command, url) in SOME else pytest.mark.faults)
        for command in COMMANDS
        for url in WRONG
        if command in ("serve", "several workers") or url != WRONG[2]  # the others look at other files first
    ],
)
def test_every_command_ends_with_one_line(command: str, url: str, tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", "from app.cli import main; main()", *COMMANDS[command]],
        env={"CTR_REDIS_URL": url, "CTR_MODEL_STORE": str(tmp_path), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    lines = ended.stderr.strip().splitlines()
    assert ended.returncode == 1, ended.stderr
    assert len(lines) == 1, ended.stderr
    assert lines[0].startswith("error: CTR_REDIS_URL: ")
    assert "hun" not in lines[0]
    assert ended.stdout == ""
