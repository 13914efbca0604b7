"""How the benchmarks measure: CPU over whole process trees, medians with their spread, and where it was run."""

import contextlib
import os
import platform
import statistics
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]


class Tree:
    """The processes of one server: the process that was started, all below it, and all of its session.

    Start the process with `start_new_session=True`. Processes that ended count with what they had used when last seen.
    """

    def __init__(self, pid: int) -> None:
        self._root = pid
        self._seen: dict[int, float] = {}

    def seconds(self) -> float:
        """CPU seconds, user and system, that all of them have used so far; the kernel counts in 10 ms."""
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                self._seen[process.pid] = times.user + times.system
        return sum(self._seen.values())

    def processes(self) -> list[psutil.Process]:
        """Those that live now."""
        found: dict[int, psutil.Process] = {}
        with contextlib.suppress(psutil.NoSuchProcess):
            root = psutil.Process(self._root)
            found = {process.pid: process for process in (root, *root.children(recursive=True))}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                if os.getsid(process.pid) == self._root:
                    found[process.pid] = process
        return list(found.values())

    def end(self, *, patience: float = 20.0) -> None:
        """Asks the process that was started to end, then ends what is left."""
        left = self.processes()
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(self._root).terminate()
        _, left = psutil.wait_procs(left, timeout=patience)
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Median and range: `1.23 (1.10 to 1.40)`."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def ratios(mine: Sequence[float], other: Sequence[float]) -> list[float]:
    """Mine by the other's, round by round: what the machine did meanwhile then counts on both sides."""
    return [one / two for one, two in zip(mine, other, strict=True)]


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def conditions() -> str:
    """When and where, and how busy the machine is with other work: the first line of every benchmark."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    date = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    return f"{date}; {os.cpu_count()} cores ({model}); Python {platform.python_version()}; load before {load}"
