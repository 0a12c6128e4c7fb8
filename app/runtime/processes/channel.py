"""Messages between the supervisor and one worker, over a pair of sockets that keep them apart (SOCK_SEQPACKET).

A worker says its process id, then that its event loop turns (the heartbeat, with whether it is ready for traffic),
that it listens, or that its settings are wrong. The supervisor says that the service is about to stop, and when the
worker shall. The end of the channel is the end of the process at its other end. Signals play no part, because
terminals, systemd and others send theirs to all processes of a service at once.
"""

from __future__ import annotations

import contextlib
import socket

import msgspec

MAX_MESSAGE_BYTES = 65_536


class Started(msgspec.Struct, tag=True):
    """The worker exists."""

    pid: int


class Heartbeat(msgspec.Struct, tag=True):
    """The worker's event loop turns."""

    ready: bool
    """Whether the application wants traffic, as /health/ready says it."""
    listening: bool
    """Whether start-up is done, and connections are accepted."""


class Refused(msgspec.Struct, tag=True):
    """The worker found the settings wrong and ends."""

    problem: str


class Drain(msgspec.Struct, tag=True):
    """The service is about to stop: the worker shall say that it is not ready, and go on."""


class Stop(msgspec.Struct, tag=True):
    """The worker shall stop listening, finish its requests and end."""


WorkerMessage = Started | Heartbeat | Refused
SupervisorMessage = Drain | Stop

_worker_decoder = msgspec.json.Decoder(WorkerMessage)
_supervisor_decoder = msgspec.json.Decoder(SupervisorMessage)


def open_channel() -> tuple[socket.socket, socket.socket]:
    """Return the supervisor's end and the worker's end, of which neither blocks."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        end.setblocking(False)
    return ends


def send(end: socket.socket, message: WorkerMessage | SupervisorMessage) -> None:
    """Send a message; it is lost where the other end has ended, or has not read for so long that no more fit in."""
    with contextlib.suppress(OSError):
        end.send(msgspec.json.encode(message))


def receive_from_worker(end: socket.socket) -> tuple[list[WorkerMessage], bool]:
    """Return the messages that have arrived from a worker, and whether the channel is still open."""
    messages: list[WorkerMessage] = []
    while True:
        try:
            packet = end.recv(MAX_MESSAGE_BYTES)
        except BlockingIOError:
            return messages, True
        except OSError:
            return messages, False
        if not packet:
            return messages, False
        messages.append(_worker_decoder.decode(packet))


def receive_from_supervisor(end: socket.socket) -> SupervisorMessage | None:
    """Return the message that has arrived from the supervisor, or None if it has ended."""
    try:
        packet = end.recv(MAX_MESSAGE_BYTES)
    except OSError:
        return None
    return _supervisor_decoder.decode(packet) if packet else None
