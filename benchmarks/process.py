"""Peak memory of the process that a benchmark runs in."""

from __future__ import annotations

from pathlib import Path


def peak_mb() -> int:
    """Return the highest resident memory of this process, in MB.

    It does not use getrusage, because there a child process starts with the peak of its parent.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) // 1024
