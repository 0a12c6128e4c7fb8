"""Written in an afternoon: FastAPI, pydantic, a pipeline of HGETALLs, vocabulary dicts, TorchScript over all pairs."""

from __future__ import annotations

import warnings
from argparse import Namespace

import redis
import redis.asyncio
import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from torch import Tensor, nn

from benchmarks.peers import published


class RankRequest(BaseModel):
    user_id: str
    item_ids: list[str]


class RankedItem(BaseModel):
    item_id: str
    score: float


class RankResponse(BaseModel):
    user_id: str
    items: list[RankedItem]


class DeepFM(nn.Module):
    """DeepFM as the paper writes it, over index tensors [N, F]."""

    def __init__(self, weights: published.Published) -> None:
        super().__init__()
        self.embedding = nn.Embedding.from_pretrained(torch.from_numpy(weights.embedding))  # type: ignore[no-untyped-call]
        first_order = torch.from_numpy(weights.first_order).unsqueeze(1)
        self.first_order = nn.Embedding.from_pretrained(first_order)  # type: ignore[no-untyped-call]
        self.bias = weights.bias
        layers: list[nn.Module] = []
        for weight, bias in weights.layers:
            linear = nn.Linear(weight.shape[1], weight.shape[0])
            linear.weight.data.copy_(torch.from_numpy(weight))
            linear.bias.data.copy_(torch.from_numpy(bias))
            layers += [linear, nn.ReLU()]
        self.deep = nn.Sequential(*layers[:-1])

    def forward(self, index_NF: Tensor) -> Tensor:
        e_NFK = self.embedding(index_NF)
        sum_NK = e_NFK.sum(1)
        second_N = 0.5 * (sum_NK * sum_NK - (e_NFK * e_NFK).sum(1)).sum(1)
        first_N = self.first_order(index_NF).sum((1, 2))
        deep_N = self.deep(e_NFK.flatten(1)).squeeze(1)
        return torch.sigmoid(self.bias + first_N + second_N + deep_N)


class Afternoon:
    """The ranking code, which FastAPI, mosec or LitServe serves."""

    def __init__(self, options: Namespace) -> None:
        torch.set_num_threads(1)  # it has one core; more threads would only make it slower
        weights = published.read(options.version)
        self.user_fields = [(name, weights.vocabulary(name, options.cardinality)) for name in weights.user_fields]
        self.item_fields = [(name, weights.vocabulary(name, options.cardinality)) for name in weights.item_fields]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            self.model = torch.jit.freeze(torch.jit.script(DeepFM(weights).eval()))

    @torch.inference_mode()
    def rank(self, user: dict[str, str], item_ids: list[str], items: list[dict[str, str]]) -> list[dict[str, object]]:
        user_index = [vocabulary[user[name]] for name, vocabulary in self.user_fields]
        item_index = [[vocabulary[item[name]] for name, vocabulary in self.item_fields] for item in items]
        items_NF = torch.tensor(item_index)
        user_NF = torch.tensor(user_index).expand(len(items), -1)
        scores = self.model(torch.cat([user_NF, items_NF], 1)).tolist()
        ranked = [{"item_id": item_id, "score": score} for item_id, score in zip(item_ids, scores, strict=True)]
        return sorted(ranked, key=lambda item: item["score"], reverse=True)


class BlockingAfternoon(Afternoon):
    """The ranking code with a blocking client, for frameworks that run a model in a process of its own."""

    def __init__(self, options: Namespace) -> None:
        super().__init__(options)
        self.store = redis.from_url(options.redis, decode_responses=True)

    def answer(self, request: RankRequest) -> RankResponse:
        with self.store.pipeline(transaction=False) as pipeline:
            pipeline.hgetall(f"ctr:v1:user:{request.user_id}")
            for item_id in request.item_ids:
                pipeline.hgetall(f"ctr:v1:item:{item_id}")
            user, *items = pipeline.execute()
        ranked = self.rank(user, request.item_ids, items)
        return RankResponse(user_id=request.user_id, items=[RankedItem(**item) for item in ranked])


def main() -> None:
    options = published.options()
    ranker = Afternoon(options)
    store = redis.asyncio.from_url(options.redis, decode_responses=True)
    app = FastAPI()

    @app.post("/rank")
    async def rank(request: RankRequest) -> RankResponse:
        async with store.pipeline(transaction=False) as pipeline:
            pipeline.hgetall(f"ctr:v1:user:{request.user_id}")
            for item_id in request.item_ids:
                pipeline.hgetall(f"ctr:v1:item:{item_id}")
            user, *items = await pipeline.execute()
        ranked = ranker.rank(user, request.item_ids, items)
        return RankResponse(user_id=request.user_id, items=[RankedItem(**item) for item in ranked])

    uvicorn.run(app, port=options.port, access_log=False, log_level="warning")


if __name__ == "__main__":
    main()
