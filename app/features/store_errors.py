"""What a Redis that refuses, or that cannot be reached, means: one line for the log, `/health` and the commands.

The messages hold nothing of a key or a password: a server's own words are cut, and quote neither.
"""

from __future__ import annotations

import os
import re
import socket
import ssl

import redis

MAX_REASON = 120
MAX_CAUSES = 8

CLUSTER_NODE = "it is a node of a cluster, which has some of the keys only: redis+cluster://HOST:PORT asks all nodes"
MEANINGS = {
    "NOPERM": "its user may not do this: docs/redis.md lists the commands and keys that it needs",
    "NOAUTH": "it asks for a password: redis://:PASSWORD@HOST or redis://USER:PASSWORD@HOST in CTR_REDIS_URL",
    "WRONGPASS": "the user or the password in CTR_REDIS_URL is wrong",
    "DENIED": "it is in protected mode: it wants a password, or `protected-mode no`",
    "MOVED": CLUSTER_NODE,
    "ASK": CLUSTER_NODE,
    "CROSSSLOT": CLUSTER_NODE,
    "CLUSTERDOWN": "its cluster is down: it lacks most masters, or some hash slots have no node",
    "LOADING": "it still reads its data from disk",
    "MASTERDOWN": "it is a replica without its master, and may not serve old data",
    "READONLY": "it is a replica, which takes no writes: name the master",
    "OOM": "its memory is full: raise its maxmemory, or have it evict",
    "MISCONF": "it cannot save to its disk, and takes no writes until it can",
    "NOREPLICAS": "it has too few replicas to take writes",
    "BUSY": "a script keeps it busy",
    "WRONGTYPE": "another program keeps something else than a hash under such a key",
}
"""The first word of an error to what it means for a feature store."""
SENTINEL = "it is a Sentinel, which holds no features but knows who does: redis+sentinel://HOST:PORT/SERVICE"
NO_HASHES = re.compile(r"unknown command .?(HMGET|HLEN)", re.IGNORECASE)
"""Matches what a Sentinel says that is asked for features."""
NOT_REDIS = "what answers there is no Redis: is it the port of another program, or one for TLS (rediss://)?"
NOT_TLS = "the server does not speak TLS there: redis:// is without"
WANTS_TLS = "does it want TLS (rediss://)?"
WANTS_CERTIFICATE = "does it ask for a certificate (ssl_certfile)?"


def explain_reply(reply: object, code: str = "") -> str:
    """Return an error of the server with what it means.

    Args:
        code: the first word of the error where `reply` is without it.
    """
    words = " ".join(str(reply).split())
    if code and not words.startswith(code):
        words = f"{code} {words}"
    meaning = MEANINGS.get(words.partition(" ")[0]) or (SENTINEL if NO_HASHES.search(words) else None)
    quoted = words if len(words) <= MAX_REASON else f"{words[:MAX_REASON]}…"
    return f"{meaning} ({quoted})" if meaning else quoted


def explain_failure(error: BaseException, *, tls: bool | None = None) -> str:
    """Return why there is no connection, by the error and those that caused it, which redis-py wraps.

    Args:
        tls: whether TLS was asked for, where something is known of that.
    """
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and len(causes) < MAX_CAUSES:
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__
    for cause in causes:
        if isinstance(cause, ssl.SSLError):
            return _explain_tls(cause)
        if isinstance(cause, socket.gaierror):
            return "its host name cannot be resolved"
    if any(isinstance(cause, TimeoutError | redis.TimeoutError) for cause in causes):
        return f"no answer in time{': does it speak TLS there?' if tls else ''}"
    if any(isinstance(cause, redis.InvalidResponse) for cause in causes):
        return NOT_REDIS
    reason = next(filter(None, map(_system_reason, causes)), "") or " ".join(str(error).split())[:MAX_REASON]
    if any(isinstance(cause, ConnectionResetError) for cause in causes) or "closed" in reason:
        hint = {True: f": {WANTS_CERTIFICATE}", False: f": {WANTS_TLS}", None: ""}[tls]
        return f"{reason.rstrip('.')}{hint}"
    return reason or type(error).__name__


def _explain_tls(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}; ssl_ca_certs names its authority"
    if "CERTIFICATE_REQUIRED" in str(error):
        return "it asks for a certificate (ssl_certfile, ssl_keyfile)"
    if any(word in str(error) for word in ("WRONG_VERSION_NUMBER", "RECORD_LAYER")):
        return NOT_TLS
    if "EOF" in str(error):
        return f"the server closes the connection: {WANTS_CERTIFICATE}"
    return f"TLS: {error.reason or error}"


def _system_reason(error: BaseException) -> str:
    """Return the system's words for an error; asyncio has words of its own, with an address."""
    if not isinstance(error, OSError):
        return ""
    number = error.errno
    if number is None and (match := re.search(r"\[Errno (\d+)\]", str(error))):  # of several addresses
        number = int(match[1])
    return os.strerror(number) if number else ""
