"""`serve`: runs a service in as many processes as the settings say, until it is told to stop."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

from app.observability.logs import configure_logging
from app.runtime import descriptors
from app.runtime.processes.listener import addresses_of, reserve
from app.runtime.processes.metrics_folder import metrics_folder
from app.runtime.processes.supervisor import Supervisor
from app.settings import Settings
from app.url_host import url_host


def serve(settings: Settings, factory: str, announce: Callable[[str], None] = lambda url: None) -> None:
    """Serve until SIGINT or SIGTERM; SIGHUP replaces the workers one after another.

    Args:
        factory: `module:function` that makes the `ServedApplication` from the settings, imported by the workers alone.
        announce: called with the address once a worker listens there; with port 0 the caller learns the port by it.

    Raises:
        ConfigError: the address cannot be bound, or a worker finds the settings wrong.
        CtrError: the application cannot be imported.
    """
    descriptors.raise_limit()
    with contextlib.ExitStack() as stack:
        reserved, *_ = [stack.enter_context(reserve(address)) for address in addresses_of(settings)]
        folder = stack.enter_context(metrics_folder())
        port = reserved.getsockname()[1]
        configure_logging(settings.log_level)
        # prometheus_client reads it when a worker first imports it.
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
        try:
            supervisor = Supervisor(settings.model_copy(update={"port": port}), factory)
            supervisor.run(lambda: announce(f"http://{url_host(settings.host)}:{port}{settings.root_path}"))
        finally:
            del os.environ["PROMETHEUS_MULTIPROC_DIR"]
