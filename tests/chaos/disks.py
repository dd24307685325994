"""A small disk that can be filled up: a tmpfs of its own, where mounting is allowed."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from pathlib import Path

_CHUNK = b"\0" * (1 << 20)


class SmallDisk:
    """`refused` says why this is but a folder, and cannot be filled; None on a real one."""

    def __init__(self, folder: Path, size_mb: int) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={size_mb}m,mode=700", "tmpfs", str(folder)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            self.refused = done.stderr.strip() or "mount refused" if done.returncode else None
        except FileNotFoundError as error:
            self.refused = str(error)

    def fill(self, leave_bytes: int = 0) -> None:
        """Take all space but `leave_bytes`."""
        with (self.folder / ".ballast").open("wb", buffering=0) as file, suppress(OSError):
            while True:
                free = os.statvfs(self.folder).f_bavail * os.statvfs(self.folder).f_frsize - leave_bytes
                if free <= 0 or not file.write(_CHUNK[:free]):
                    break

    def empty(self) -> None:
        (self.folder / ".ballast").unlink(missing_ok=True)

    def close(self) -> None:
        if self.refused is None:
            subprocess.run(["umount", "-l", str(self.folder)], capture_output=True, check=False)
