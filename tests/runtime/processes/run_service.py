"""Runs a service of a small application: `python -m tests.runtime.processes.run_service FACTORY SETTINGS`, as JSON."""

from __future__ import annotations

import json
import sys

from app.errors import CtrError
from app.runtime.processes.serve import serve
from app.settings import Settings

if __name__ == "__main__":
    factory, settings = sys.argv[1:]
    try:
        serve(
            Settings(_env_file=None, port=0, **json.loads(settings)),
            f"tests.runtime.processes.applications:{factory}",
            lambda url: print(url, flush=True),
        )
    except CtrError as error:
        sys.exit(str(error))
