"""Temporary files without a name: nothing is left behind, however the process ends.

Used by the mold, which finds out whether there can be any, and by workers, which spool to them.
"""

from __future__ import annotations

import errno
import os
import tempfile

_NO_TMPFILE = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOSYS})
"""What file systems answer that do not know ``O_TMPFILE``; see open(2)."""


def directory(tmp_dir: str | None) -> str:
    """Return where temporary files go: ``tmp_dir`` of the config, else ``$TMPDIR``, else ``/tmp``.

    The working directory, which ``tempfile`` may choose, is no place for what clients send.
    """
    return tmp_dir or os.environ.get("TMPDIR") or "/tmp"


def open_unlinked(folder: str) -> int:
    """Return the descriptor of a new, empty file without a name in ``folder``. Raises ``OSError``."""
    try:
        return os.open(folder, os.O_TMPFILE | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in _NO_TMPFILE:
            raise
    fd, path = tempfile.mkstemp(prefix="prefork-", dir=folder)
    os.unlink(path)
    return fd


def problem(folder: str) -> str | None:
    """Return why there can be no temporary file in ``folder``, or None if there can."""
    try:
        fd = open_unlinked(folder)
    except OSError as error:
        return error.strerror or str(error)
    try:
        os.write(fd, b"x")
    except OSError as error:
        return error.strerror or str(error)
    finally:
        os.close(fd)
    return None
