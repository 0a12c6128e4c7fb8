"""The afternoon's code under LitServe."""

# LitServe reads the annotations as objects, so they are not postponed here.

import litserve  # type: ignore[import-untyped]

from benchmarks.peers import published
from benchmarks.peers.afternoon import BlockingAfternoon, RankRequest, RankResponse


class Rank(litserve.LitAPI):  # type: ignore[misc]
    def setup(self, device: str) -> None:
        self.afternoon = BlockingAfternoon(published.options())

    def decode_request(self, request: RankRequest) -> RankRequest:
        return request

    def predict(self, request: RankRequest) -> RankResponse:
        return self.afternoon.answer(request)

    def encode_response(self, response: RankResponse) -> RankResponse:
        return response


def main() -> None:
    server = litserve.LitServer(Rank(api_path="/rank"), accelerator="cpu")
    server.run(host="127.0.0.1", port=published.options().port, generate_client_file=False, log_level="warning")


if __name__ == "__main__":
    main()
