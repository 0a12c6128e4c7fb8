"""Commands as bytes of RESP, the protocol of Redis: an array of bulk strings."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def pack_command(*words: str) -> bytes:
    """Return one command, such as `pack_command("SELECT", "1")`."""
    return b"*%d\r\n%b" % (len(words), b"".join(bulk_string(_encode(word)) for word in words))


def key_command(name: str, arguments: Sequence[str] = ()) -> Callable[[str], bytes]:
    """Return a function that packs the command `name` with one key, for commands packed by the hundred.

    Args:
        arguments: what follows the key, the same each time.
    """
    head = b"*%d\r\n%b$" % (2 + len(arguments), bulk_string(_encode(name)))
    tail = b"\r\n" + b"".join(bulk_string(_encode(argument)) for argument in arguments)

    def pack(key: str) -> bytes:
        raw = _encode(key)
        return b"%b%d\r\n%b%b" % (head, len(raw), raw, tail)

    return pack


def bulk_string(raw: bytes) -> bytes:
    """Return one word of a command, with its length before it."""
    return b"$%d\r\n%b\r\n" % (len(raw), raw)


def _encode(word: str) -> bytes:
    return word.encode("utf-8", "surrogatepass")
