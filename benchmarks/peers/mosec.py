"""The afternoon's code under mosec: HTTP in Rust, the model in a process of its own."""

from __future__ import annotations

from typing import Any

import mosec

from benchmarks.peers import published
from benchmarks.peers.afternoon import BlockingAfternoon, RankRequest


class Rank(mosec.Worker):
    def __init__(self) -> None:
        self.afternoon = BlockingAfternoon(published.options())

    def forward(self, data: dict[str, Any]) -> dict[str, Any]:
        return self.afternoon.answer(RankRequest.model_validate(data)).model_dump()


def main() -> None:
    server = mosec.Server()  # type: ignore[no-untyped-call]  # reads --port itself
    server.register_runtime({"/rank": [mosec.Runtime(Rank)]})
    server.run()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
