"""Tests of metrics that several processes share through files, while one of them is just starting."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_a_file_another_process_has_just_made_does_not_fail_a_scrape_for_long(tmp_path: Path) -> None:
    (tmp_path / "counter_1.db").touch()
    script = f"""
from pathlib import Path
from app.observability import all_processes
from app.observability.metrics import Metrics
def filled_meanwhile():
    try:
        return all_processes._read()
    finally:
        Path({str(tmp_path)!r}, "counter_1.db").unlink(missing_ok=True)
metrics = Metrics()
metrics.flush()
print(all_processes.render_all_processes(filled_meanwhile).decode())
"""
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, timeout=600)
    assert done.returncode == 0, done.stderr.decode()
    assert b"ctr_inflight_requests" in done.stdout
