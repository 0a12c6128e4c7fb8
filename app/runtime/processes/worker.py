"""`run_worker`: the life of a worker, from the fork to its exit status."""

from __future__ import annotations

import contextlib
import os
import socket
import sys

import structlog
import uvloop
from uvicorn.importer import import_from_string

from app.errors import ConfigError
from app.observability.all_processes import share_metrics_as
from app.observability.logs import configure_logging
from app.runtime.processes.channel import Refused, Started, send
from app.runtime.processes.kernel import end_with, set_process_name
from app.runtime.processes.listener import addresses_of, bind
from app.runtime.processes.server import ServedApplication, Server, server_config
from app.runtime.processes.supervisor_link import SupervisorLink
from app.settings import Settings

log = structlog.get_logger(__name__)

REFUSED = 78
"""Exit status of a worker that found the settings wrong: EX_CONFIG of sysexits.h."""


def run_worker(settings: Settings, factory: str, number: int, channel: socket.socket, supervisor: int) -> int:
    """Serve in this process until it is told to stop; return its exit status.

    Args:
        factory: `module:function` that makes the `ServedApplication` from the settings.
        number: tells the workers of a service apart.
        channel: the worker's end of its channel.
        supervisor: process id of the supervisor, without which the worker ends.
    """
    try:
        end_with(supervisor)
        set_process_name(f"ctr-worker-{number}")
        send(channel, Started(os.getpid()))
        configure_logging(settings.log_level)
        share_metrics_as(number)
        application: ServedApplication = import_from_string(factory)(settings)
        server = Server(server_config(settings, application), application, SupervisorLink(channel))
        # Not asyncio.run, which waits at the end for tasks and threads that the grace has not been enough for.
        uvloop.new_event_loop().run_until_complete(server.serve([bind(address) for address in addresses_of(settings)]))
    except ConfigError as error:
        send(channel, Refused(str(error)))
        return REFUSED
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except BaseException:
        log.exception("worker_failed", worker=number)
        return 1
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
    return 0
