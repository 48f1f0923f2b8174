"""What an error of SQLite means to the engine: there is no space, or the file cannot be trusted any more."""

# pyright: reportUnknownMemberType=false
# apsw's stubs name collections.abc.Buffer, which Python 3.11 does not have yet.

from __future__ import annotations

import errno

import apsw

from holdfast.errors import DiskFull, EngineError

_NO_SPACE = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))


def is_full(error: BaseException, connection: apsw.Connection) -> bool:
    """Whether a write found no space; then the transaction did not happen and the file is sound.

    A sync that found none is another matter: what was written before it may be lost, and a process that goes on would
    build on what only the cache has.
    """
    if isinstance(error, apsw.FullError):
        return True
    # SQLite knows a full disk by ENOSPC; a quota or a limit on file sizes is an I/O error to it.
    return (
        isinstance(error, apsw.IOError)
        and getattr(error, "extendedresult", None) == apsw.SQLITE_IOERR_WRITE
        and connection.system_errno in _NO_SPACE
    )


def disk_full(*, is_final: bool = False) -> DiskFull:
    """
    Args:
        is_final: the engine has stopped over it.
    """
    if is_final:
        return DiskFull("the disk is full; the engine has stopped", hint="free space and start it again: it goes on")
    return DiskFull(
        "the disk is full: this was not accepted, nor will anything be until there is space",
        hint="free space; the engine notices and goes on by itself. Repeat the request then",
    )


def unreadable(error: apsw.Error) -> EngineError:
    """A look at the rows failed. Nothing was changed, so the engine need not stop."""
    failure = EngineError(
        f"the database could not be read: {type(error).__name__}: {error}",
        hint="look at the disk (dmesg, SMART); what is stored was not changed",
    )
    failure.__cause__ = error
    return failure


def unusable(error: BaseException, doing: str) -> EngineError:
    """
    Args:
        doing: what could not be done, e.g. "a commit failed".
    """
    failure = EngineError(
        f"{doing}: {type(error).__name__}: {error}",
        hint="the engine has stopped; start it again, it goes on from what is on disk",
    )
    failure.__cause__ = error
    return failure
