"""`writable_folder`: finds a place to write where the usual one is read-only, as in a container with such a root."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterable
from pathlib import Path


def writable_folder(candidates: Iterable[Path]) -> Path | None:
    """Return the first folder in which a file can be made; None if there is none.

    A folder that is missing is made for the trial and removed again, so that a run that writes nothing leaves nothing.
    Trying is the only way to know: permissions, read-only mounts and full disks each say no in their own call.
    """
    for folder in candidates:
        missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError:
            continue
        finally:
            for parent in missing:
                with contextlib.suppress(OSError):
                    parent.rmdir()
        return folder
    return None


def private_folder(name: str) -> Path | None:
    """Return a folder of this user's own among the temporary files, the same on each call; None if there is none.

    Others can make a folder of that name first, so one that is not ours alone is not taken: what is read back from it
    may be run.
    """
    folder = Path(tempfile.gettempdir()) / f"{name}-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError:
        return None
    is_own = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o077
    return folder if is_own and os.access(folder, os.W_OK | os.X_OK) else None
