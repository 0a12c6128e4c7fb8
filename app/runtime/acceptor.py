"""`Acceptor`: takes new connections from a listening socket, as many as there is room for.

uvloop's own server takes whatever comes: without descriptors libuv resets every new connection, and on other errors of
accept() uvloop closes the listening socket for good, without a word.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import structlog

from app.observability.logs import LogThrottle
from app.runtime.connections import Connections
from app.runtime.http_protocol import HttpProtocol

BACKLOG = 2048
"""Connections that the kernel keeps until they are taken."""
BATCH = 32
"""Connections taken in one turn of the event loop; less than the reserve of descriptors, as those evicted for them are
only gone after it."""
PAUSE_S = 0.1
"""How long no connection is taken after accept() failed: it would fail again at once."""

log = structlog.get_logger(__name__)


class Acceptor:
    """Takes the connections of one listening socket; has the methods by which uvicorn ends a server."""

    def __init__(
        self,
        listener: socket.socket,
        connections: Connections,
        create_protocol: Callable[[], HttpProtocol],
    ) -> None:
        """Listen with a socket that is bound, and take its connections from now on."""
        self._listener = listener
        self._connections = connections
        self._create_protocol = create_protocol
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        self._log_throttle = LogThrottle()
        listener.setblocking(False)
        listener.listen(BACKLOG)
        self._loop.add_reader(listener, self._accept)

    def close(self) -> None:
        """Take the connections that wait to be accepted, and close the listener; those that were taken go on.

        The kernel resets what waits in the queue of a socket when that is closed, and hands it to no other socket of
        the port. A connection that comes between the last accept() and the close is lost all the same.
        """
        if not self._closed:
            self._closed = True
            self._loop.remove_reader(self._listener)
            for _ in range(BACKLOG):
                if not self._accept_one():
                    break
            self._listener.close()

    async def wait_closed(self) -> None:
        """Wait until connections that were just taken are known to the server."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self) -> None:
        for _ in range(BATCH):
            if not self._accept_one():
                return

    def _accept_one(self) -> bool:
        """Take a connection; return whether there may be more."""
        try:
            client, (address, *_) = self._listener.accept()
        except (InterruptedError, ConnectionAbortedError):
            return True
        except BlockingIOError:
            return False
        except OSError as error:
            self._pause(error)
            return False
        client.setblocking(False)
        protocol = self._create_protocol()
        protocol.refusal = self._connections.make_room(address)
        self._connections.add(protocol, address)
        task = self._loop.create_task(self._take(client, protocol))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def _take(self, client: socket.socket, protocol: HttpProtocol) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: protocol, client)
        except OSError:  # the client has left
            client.close()
            self._connections.remove(protocol)

    def _pause(self, error: OSError) -> None:
        """Make room, and take no connection for a moment, in which the kernel keeps those that come."""
        if self._log_throttle.admits():
            log.error("accept_failed", error=str(error), connections=len(self._connections))
        self._connections.evict()
        self._loop.remove_reader(self._listener)
        self._loop.call_later(PAUSE_S, self._resume)

    def _resume(self) -> None:
        if not self._closed:
            self._loop.add_reader(self._listener, self._accept)
