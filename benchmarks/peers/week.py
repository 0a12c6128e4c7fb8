"""Written in a week, with measurements: packed rows and one MGET, msgspec, numpy, ONNX Runtime on one thread.

Features are kept not as hashes but as the table rows that they stand for, `week:item:<id>` and `week:user:<id>`, int32,
written by `prepare` and by any job that updates features, so nothing is looked up or parsed at request time. The whole
DeepFM runs in one ONNX graph, the user's part expanded inside it.
"""

from __future__ import annotations

import asyncio
from argparse import Namespace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import hiredis
import msgspec
import numpy as np
import onnx
import onnxruntime  # type: ignore[import-untyped]
import redis
import uvicorn
from onnx import TensorProto, helper, numpy_helper

from benchmarks.peers import published

USER, ITEM = "week:user:", "week:item:"
BATCH = 1000


class RankRequest(msgspec.Struct):
    user_id: str
    item_ids: list[str]


def prepare(store: redis.Redis, version: Path, cardinality: int, users: Any, items: Any) -> None:
    """Write the packed rows of all users and items.

    Args:
        users, items: values [N, fields], int, of entities 0..N-1.
    """
    weights = published.read(version)
    for prefix, fields, values_NF in ((USER, weights.user_fields, users), (ITEM, weights.item_fields, items)):
        rows_FC = np.array([list(weights.vocabulary(name, cardinality).values()) for name in fields], np.int32)
        packed_NF = rows_FC[np.arange(len(fields)), values_NF]
        for start in range(0, len(packed_NF), BATCH):
            chunk = packed_NF[start : start + BATCH]
            store.mset({f"{prefix}{start + n}": row.tobytes() for n, row in enumerate(chunk)})


def build_graph(weights: published.Published) -> bytes:
    """Return the ONNX graph from user int32 [Fu] and items int32 [N, Fi] to probability float32 [N]."""
    users, fields, dim = len(weights.user_fields), len(weights.fields), weights.embedding.shape[1]
    nodes: list[Any] = []
    constants: list[Any] = []

    def constant(name: str, value: Any) -> str:
        constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    table = constant("embedding", weights.embedding)
    first = constant("first_order", weights.first_order)
    one = constant("axis_1", np.array([1], np.int64))
    user_e = node("Gather", [table, "user"], "user_e")  # [Fu, K]
    item_e = node("Gather", [table, "items"], "item_e")  # [N, Fi, K]
    # Expanded as flat rows, [N, Fu K], so that the concatenation is the deep part's input and needs no reshape.
    n = node("Shape", ["items"], "n", start=0, end=1)
    flat_user = node("Reshape", [user_e, constant("row", np.array([1, users * dim], np.int64))], "flat_user")
    width = constant("user_width", np.array([users * dim], np.int64))
    wide_user = node("Expand", [flat_user, node("Concat", [n, width], "wide", axis=0)], "wide_user")
    flat_item = node(
        "Reshape", [item_e, constant("rows", np.array([0, (fields - users) * dim], np.int64))], "flat_item"
    )
    hidden = node("Concat", [wide_user, flat_item], "inputs", axis=1)  # [N, F K]
    e = node("Reshape", [hidden, constant("cube", np.array([0, fields, dim], np.int64))], "e")
    total = node("ReduceSum", [e, one], "sum", keepdims=0)  # [N, K]
    squares = node("ReduceSumSquare", [e, one], "squares", keepdims=0)
    cross = node("Sub", [node("Mul", [total, total], "square"), squares], "cross")
    second = node("ReduceSum", [cross, one], "second_twice", keepdims=0)
    second = node("Mul", [second, constant("half", np.float32(0.5))], "second")
    user_w = node("ReduceSum", [node("Gather", [first, "user"], "user_ws")], "user_w", keepdims=0)
    item_w = node("ReduceSum", [node("Gather", [first, "items"], "item_ws"), one], "item_w", keepdims=0)
    for number, (weight, bias) in enumerate(weights.layers):
        inputs = [
            hidden,
            constant(f"weight_{number}", np.ascontiguousarray(weight.T)),
            constant(f"bias_{number}", bias),
        ]
        hidden = node("Gemm", inputs, f"linear_{number}")
        if number < len(weights.layers) - 1:
            hidden = node("Relu", [hidden], f"hidden_{number}")
    deep = node("Squeeze", [hidden, one], "deep")
    scalar = node("Add", [user_w, constant("bias", np.float32(weights.bias))], "scalar")
    logit = node("Add", [node("Add", [deep, second], "a"), node("Add", [item_w, scalar], "b")], "logit")
    node("Sigmoid", [logit], "probability")
    graph = helper.make_graph(
        nodes,
        "deepfm",
        [
            helper.make_tensor_value_info("user", TensorProto.INT32, [users]),
            helper.make_tensor_value_info("items", TensorProto.INT32, ["N", fields - users]),
        ],
        [helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["N"])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


class Store(asyncio.Protocol):
    """One connection for all requests, without the general client's work on each key."""

    def __init__(self) -> None:
        self._reader = hiredis.Reader()
        self._waiting: list[asyncio.Future[Any]] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            self._waiting.pop(0).set_result(reply)

    def close(self) -> None:
        self._transport.close()

    def ask(self, *words: str) -> asyncio.Future[Any]:
        """Send a command; the future gets its reply."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        self._transport.write(hiredis.pack_command(words))  # type: ignore[attr-defined,arg-type]
        return future


class Week:
    """An ASGI application that ranks with the packed rows."""

    def __init__(self, options: Namespace) -> None:
        weights = published.read(options.version)
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = settings.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(build_graph(weights), settings, ["CPUExecutionProvider"])
        self._widths = len(weights.user_fields), len(weights.item_fields)
        self._address = urlsplit(options.redis)
        self._store = Store()
        self._decode = msgspec.json.Decoder(RankRequest).decode
        self._encode = msgspec.json.Encoder().encode

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: self._store, self._address.hostname, self._address.port)
        if self._address.password:
            await self._store.ask("AUTH", self._address.password)

    def stop(self) -> None:
        self._store.close()

    async def rank(self, raw: bytes) -> bytes:
        request = self._decode(raw)
        keys = [USER + request.user_id]
        keys += [ITEM + item_id for item_id in request.item_ids]
        rows = await self._store.ask("MGET", *keys)
        users, items = self._widths
        packed = np.frombuffer(b"".join(rows), np.int32)
        inputs = {"user": packed[:users], "items": packed[users:].reshape(-1, items)}
        (scores,) = self._session.run(None, inputs)
        order = np.argsort(-scores, kind="stable")
        item_ids = request.item_ids
        ranked = [
            {"item_id": item_ids[index], "score": score}
            for index, score in zip(order.tolist(), scores[order].tolist(), strict=True)
        ]
        return self._encode({"user_id": request.user_id, "items": ranked})

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await self.start()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            self.stop()
            await send({"type": "lifespan.shutdown.complete"})
            return
        raw = b""
        more = True
        while more:
            message = await receive()
            raw += message.get("body", b"")
            more = message.get("more_body", False)
        content = await self.rank(raw)
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})


def main() -> None:
    options = published.options()
    uvicorn.run(
        Week(options),
        port=options.port,
        loop="uvloop",
        http="httptools",
        lifespan="on",
        access_log=False,
        log_level="warning",
        server_header=False,
        date_header=False,
    )


if __name__ == "__main__":
    main()
