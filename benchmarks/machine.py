"""What a figure was measured on, and the processor time that it took."""

import os
import platform
from pathlib import Path


def processor() -> str:
    """The name of the processor, where it can be read."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def machine() -> str:
    """Processor, cores and system."""
    return f"{processor()}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}"


def cpu_s(pid: int) -> float:
    """Seconds of processor time that a process has used, its own and the system's for it; Linux."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def parent(pid: int) -> int:
    """The process that started a process; Linux."""
    return int(_stat(pid)[1])


def _stat(pid: int) -> list[str]:
    """What the system says of a process, from its state on: before it stands a name, which may hold anything."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
