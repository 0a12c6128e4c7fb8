"""What the floor leaves out and no service can: one round trip to the store, and the deep part's matrix products.

Run as a program on the service's core; prints one JSON document.
"""

from __future__ import annotations

import json
import socket
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from urllib.parse import urlsplit

import torch

TRIPS = 2000
VALUE = b"x" * 240
"""Bytes of a synthetic user's hash, about."""


def round_trip_s(redis_url: str) -> float:
    """Median seconds of one GET on a plain blocking socket."""
    address = urlsplit(redis_url)
    with socket.create_connection((address.hostname or "127.0.0.1", address.port or 6379)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def ask(command: bytes, expected: int) -> None:
            connection.sendall(command)
            while expected > 0:
                expected -= len(connection.recv(4096))

        ask(b"*3\r\n$3\r\nSET\r\n$9\r\nbench:get\r\n$%d\r\n%b\r\n" % (len(VALUE), VALUE), len(b"+OK\r\n"))
        get = b"*2\r\n$3\r\nGET\r\n$9\r\nbench:get\r\n"
        answer = len(b"$%d\r\n%b\r\n" % (len(VALUE), VALUE))
        taken = [_timed(lambda: ask(get, answer)) for _ in range(TRIPS)]
    return statistics.median(taken)


def products_s(rows: int, widths: Sequence[int], seconds: float = 0.4) -> float:
    """Seconds of the products of hidden layers `widths` and the output for `rows` rows in fp32, at the best speed."""
    sizes = [*widths, 1]
    inputs = [torch.randn(rows, width) for width in sizes]
    weights = [torch.randn(a, b) for a, b in pairwise(sizes)]
    turned = [weight.T.contiguous().T for weight in weights]

    def products(of: list[torch.Tensor]) -> None:
        for hidden, weight, output in zip(inputs, of, inputs[1:], strict=False):
            torch.mm(hidden, weight, out=output)

    best = float("inf")
    for of in (weights, turned):
        due = time.perf_counter() + seconds / 2
        taken = []
        while time.perf_counter() < due:
            taken.append(_timed(lambda of=of: products(of)))  # type: ignore[misc]
        best = min(best, statistics.median(taken))
    return best


def _timed(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main(redis_url: str, hidden: str, sizes: str) -> None:
    torch.set_num_threads(1)
    widths = [int(width) for width in hidden.split(",")]
    with torch.inference_mode():
        products = {rows: products_s(int(rows), widths) for rows in sizes.split(",")}
    print(json.dumps({"get_s": round_trip_s(redis_url), "products_s": products}))


if __name__ == "__main__":
    main(*sys.argv[1:])
