"""Times what no service can go without and the floor leaves out: a round trip to the store, and the matrix products.

It runs as a program on the service's core and prints one JSON document.
"""

from __future__ import annotations

import json
import socket
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from itertools import pairwise
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
import torch

Array = npt.NDArray[np.float32]

TRIPS = 2000
VALUE = b"x" * 240
"""A value about as long as a synthetic user's hash."""


def round_trip_s(redis_url: str) -> float:
    """Return the median seconds of one GET on a plain blocking socket."""
    address = urlsplit(redis_url)
    with socket.create_connection((address.hostname or "127.0.0.1", address.port or 6379)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def send(command: bytes, expected: int) -> None:
            """Send a command and wait for so many bytes."""
            connection.sendall(command)
            while expected > 0:
                expected -= len(connection.recv(4096))

        send(b"*3\r\n$3\r\nSET\r\n$9\r\nbench:get\r\n$%d\r\n%b\r\n" % (len(VALUE), VALUE), len(b"+OK\r\n"))
        get = b"*2\r\n$3\r\nGET\r\n$9\r\nbench:get\r\n"
        answer = len(b"$%d\r\n%b\r\n" % (len(VALUE), VALUE))
        taken = [_timed(lambda: send(get, answer)) for _ in range(TRIPS)]
    return statistics.median(taken)


def products_s(rows: int, widths: Sequence[int], seconds: float = 0.6) -> float:
    """Return the seconds of the products of hidden layers `widths` and the output for `rows` rows in fp32.

    Nothing is computed between the products. The best library that is installed counts: torch (MKL), numpy (OpenBLAS)
    or ONNX Runtime (MLAS).
    """
    sizes = [*widths, 1]
    generator = np.random.default_rng(0)
    inputs = generator.standard_normal((rows, sizes[0]), np.float32)
    weights = [generator.standard_normal(shape, np.float32) for shape in pairwise(sizes)]
    contestants = [_torch(inputs, weights), _numpy(inputs, weights)]
    if find_spec("onnxruntime") and find_spec("onnx"):
        contestants.append(_onnx(inputs, weights))
    best = float("inf")
    for products in contestants:
        due = time.perf_counter() + seconds / len(contestants)
        taken = [_timed(products)]
        while time.perf_counter() < due:
            taken.append(_timed(products))
        best = min(best, statistics.median(taken))
    return best


def _torch(inputs: Array, weights: Sequence[Array]) -> Callable[[], None]:
    tensors = [torch.from_numpy(weight) for weight in weights]
    layers = [torch.from_numpy(inputs), *(torch.empty(len(inputs), weight.shape[1]) for weight in weights)]

    def products() -> None:
        for hidden, weight, output in zip(layers, tensors, layers[1:], strict=False):
            torch.mm(hidden, weight, out=output)

    return products


def _numpy(inputs: Array, weights: Sequence[Array]) -> Callable[[], None]:
    layers = [inputs, *(np.empty((len(inputs), weight.shape[1]), np.float32) for weight in weights)]

    def products() -> None:
        for hidden, weight, output in zip(layers, weights, layers[1:], strict=False):
            np.matmul(hidden, weight, out=output)

    return products


def _onnx(inputs: Array, weights: Sequence[Array]) -> Callable[[], None]:
    import onnxruntime  # type: ignore[import-untyped]
    from onnx import TensorProto, helper, numpy_helper

    names = [f"layer_{number}" for number in range(len(weights) + 1)]
    graph = helper.make_graph(
        [helper.make_node("MatMul", [names[n], f"weight_{n}"], [names[n + 1]]) for n in range(len(weights))],
        "products",
        [helper.make_tensor_value_info(names[0], TensorProto.FLOAT, inputs.shape)],
        [helper.make_tensor_value_info(names[-1], TensorProto.FLOAT, [len(inputs), 1])],
        [numpy_helper.from_array(weight, f"weight_{n}") for n, weight in enumerate(weights)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), settings, ["CPUExecutionProvider"])
    return lambda: session.run(None, {names[0]: inputs})


def _timed(work: Callable[[], object]) -> float:
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
