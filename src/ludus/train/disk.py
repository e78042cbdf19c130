"""Writing files so that a kill, a power cut or a full disk leaves either the old file or the new one."""

from __future__ import annotations

import errno
import os
import re
import shutil
from pathlib import Path


def sync(path: Path) -> None:
    """Waits until the file, or the entries of the directory, are on the disk and not only in memory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_synced(path: Path, data: bytes) -> None:
    """Writes a new file through to the disk. Not atomic by itself: a kill may leave a part of it."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_atomic(path: Path, data: bytes) -> None:
    """Replaces `path` in one instant: a reader, or a kill at any moment, sees the old content or the new."""
    temporary = path.with_name(f".{path.name}.new")
    try:
        write_synced(temporary, data)
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def is_full(error: BaseException) -> bool:
    """True where there was no room to write: disk full, quota used up, or file larger than the limit allows.

    safetensors reports the operating system's number only inside its message, hence the second reading.
    """
    full = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
    if isinstance(error, OSError):
        return error.errno in full
    found = re.search(r"\(os error (\d+)\)", str(error))
    return found is not None and int(found.group(1)) in full


def free_bytes(folder: Path) -> int:
    """Bytes that this user may still write in `folder`."""
    return shutil.disk_usage(folder).free


def human(count: int) -> str:
    """1536 -> '1.5 KiB', for messages."""
    size = float(count)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{count} bytes" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
