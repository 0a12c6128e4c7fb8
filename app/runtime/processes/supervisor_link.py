"""`SupervisorLink`: the worker's end of its channel to the supervisor, which it tells that the event loop turns."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from app.runtime.processes.channel import Drain, Heartbeat, receive_from_supervisor, send

HEARTBEAT_S = 0.25


class SupervisorLink:
    """Sends heartbeats from the event loop, and hears that the service is about to stop or its supervisor has ended."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._listening = False
        self._ready: Callable[[], bool] = lambda: False

    def start(self, *, ready: Callable[[], bool], on_drain: Callable[[], None], on_stop: Callable[[], None]) -> None:
        """Send heartbeats from the running event loop until the process ends.

        Args:
            ready: returns whether the application wants traffic.
            on_drain: called when the service is about to stop.
            on_stop: called when this worker shall stop, or the supervisor has ended.
        """
        self._ready = ready
        self._loop = asyncio.get_running_loop()

        def read() -> None:
            if isinstance(receive_from_supervisor(self._channel), Drain):
                on_drain()
            else:
                self._loop.remove_reader(self._channel)
                on_stop()

        self._loop.add_reader(self._channel, read)
        self._beat()

    def report_listening(self) -> None:
        """Report that start-up is done and connections are accepted."""
        self._listening = True
        self._send()

    def _beat(self) -> None:
        self._send()
        self._loop.call_later(HEARTBEAT_S, self._beat)

    def _send(self) -> None:
        send(self._channel, Heartbeat(ready=self._ready(), listening=self._listening))
