"""`StoreServer`: a Redis or Valkey of one row's own, which is stopped, killed, refused and started again."""

from __future__ import annotations

import contextlib
import random
import socket
import time
from pathlib import Path
from types import TracebackType

import redis

from app.features.loading.synthetic import SyntheticCatalogue, load_features
from benchmarks.process import Process
from benchmarks.testbed import ITEM_KEY, USER_KEY, server_program

ANSWERS_S = 30.0
BUS_OFFSET = 10_000
"""Between the port of a cluster's node and that on which nodes talk to one another."""


def unlent_port() -> int:
    """Return a free port of those that the kernel gives no client, and that has BUS_OFFSET more free and unlent too.

    While nobody listens on one of the others, a client that connects to it again and again may be given it itself.
    """
    dice = random.SystemRandom()
    while True:
        port = dice.randrange(12_000, 22_000)
        with socket.socket() as probe, socket.socket() as bus, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            bus.bind(("127.0.0.1", port + BUS_OFFSET))
            return port


class StoreServer:
    """A server with a password; `options` go to it as they are."""

    def __init__(self, folder: Path, password: str, core: set[int], *options: str, port: int = 0) -> None:
        self._folder, self._password, self._core, self._options = folder, password, core, options
        self.port = port or unlent_port()
        self.process: Process | None = None
        self.starts = 0

    @property
    def url(self) -> str:
        return f"redis://:{self._password}@127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def __enter__(self) -> StoreServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def client(self) -> redis.Redis:
        """Return a client that may do everything; the caller closes it."""
        return redis.Redis(
            port=self.port, password=self._password, decode_responses=True, protocol=2, socket_timeout=10
        )

    def command(self) -> list[str]:
        """Return the command that starts it."""
        command = [server_program(), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder)]
        return [*command, "--save", "", "--requirepass", self._password, "--masterauth", self._password, *self._options]

    def start(self) -> float:
        """Start it, with what it had saved; return when it answered, in `time.perf_counter()`."""
        self.starts += 1
        command = self.command()
        log = self._folder / f"store-{self.port}-{self.starts}.log"
        self.process = Process(command, log, core=self._core)
        self.process.wait_until(self.answers, ANSWERS_S)
        return time.perf_counter()

    def answers(self) -> bool:
        """Whether it answers, and has loaded what it had saved."""
        with contextlib.suppress(redis.RedisError), self.client() as client:
            return bool(client.ping())
        return False

    def load(self, catalogue: SyntheticCatalogue) -> None:
        """Write the catalogue's features."""
        with self.client() as client:
            load_features(client, USER_KEY, catalogue, "user", lambda _: None)
            load_features(client, ITEM_KEY, catalogue, "item", lambda _: None)

    def kill(self) -> None:
        """End it as `kill -9` does."""
        if self.process is not None:
            self.process.kill()
            self.process = None


class SentinelServer(StoreServer):
    """A Sentinel that watches one master, named `mymaster`."""

    def __init__(self, folder: Path, password: str, core: set[int], *, master_port: int, quorum: int = 1) -> None:
        super().__init__(folder, password, core)
        self._config = folder / f"sentinel-{self.port}.conf"
        self._config.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {folder}\nrequirepass {password}\n"
            f"sentinel sentinel-pass {password}\n"
            f"sentinel monitor mymaster 127.0.0.1 {master_port} {quorum}\nsentinel auth-pass mymaster {password}\n"
            "sentinel down-after-milliseconds mymaster 1000\nsentinel failover-timeout mymaster 10000\n"
        )

    def command(self) -> list[str]:
        """Return the command that starts it: every server is a Sentinel too."""
        return [server_program(), str(self._config), "--sentinel"]
