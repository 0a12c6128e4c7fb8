"""`in_one_line`: what a command prints of an error that nobody raised on purpose, and what a user can do about it."""

from __future__ import annotations

import errno

from app.commands.extras import extra_of, install

WHAT_HELPS = {
    errno.EACCES: "this user may not; change its permissions or name another place",
    errno.EPERM: "this user may not; change its permissions or name another place",
    errno.EROFS: "it is read-only there; name another place",
    errno.ENOSPC: "free some space, or name another place",
    errno.EDQUOT: "free some space, or name another place",
    errno.EISDIR: "name a file",
    errno.ENOTDIR: "name a folder",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ECONNREFUSED: "is the server running, and its address right?",
}
"""What a user can do about an error of the operating system."""
MAX_ONE_LINE = 500


def in_one_line(error: BaseException) -> str:
    """Say in one line what an error is that was not raised on purpose, and what to do about it."""
    if isinstance(error, MemoryError):
        return "there is not enough memory; give it more, or fewer rows at a time"
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        advice = WHAT_HELPS.get(error.errno or 0, "")
        return f"{where}{error.strerror}{f'; {advice}' if advice else ''}"
    if type(error).__module__.partition(".")[0] == "redis":
        return f"Redis does not answer as it should: {_short(error)}; is CTR_REDIS_URL right?"
    if isinstance(error, UnicodeError):
        return f"text that is not UTF-8: {_short(error)}"
    if isinstance(error, ImportError):
        extra = extra_of(error.name)
        if extra is not None and isinstance(error, ModuleNotFoundError):
            return f"{error.name} is not installed, which this needs: `{install([extra])}`"
        advice = (
            f"; `{install(['training', 'embedded'])}` installs all" if error.name else ""
        )  # else it says what to do
        return f"a library is missing or broken: {_short(error)}{advice}"
    return f"{type(error).__name__}: {_short(error)}; this should not happen: CTR_LOG_LEVEL=debug shows where it was"


def _short(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= MAX_ONE_LINE else text[: MAX_ONE_LINE - 1] + "…"
