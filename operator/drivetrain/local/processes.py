"""Processes of an environment: found by the variable that each inherits, ended as a whole."""

import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

from drivetrain.local.components import COMPONENT, MARK


def of_environment(root: Path, component: str = "") -> tuple[psutil.Process, ...]:
    """Return all processes of this user that belong to the environment in `root`, or to one component of it."""
    found = []
    for process in psutil.process_iter():
        if process.pid == os.getpid():
            continue
        try:
            environment = process.environ()
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
        except (psutil.Error, OSError):
            continue  # ended meanwhile, or another user's: neither is ours
        if environment.get(MARK) == str(root) and (not component or environment.get(COMPONENT) == component):
            found.append(process)
    return tuple(found)


def end(processes: Iterable[psutil.Process], grace_seconds: float) -> None:
    """Ask the processes to end, and kill those that still live after the grace period."""
    living = _send(processes, signal.SIGTERM)
    _, living = psutil.wait_procs(living, timeout=grace_seconds)
    psutil.wait_procs(_send(living, signal.SIGKILL), timeout=5)


def sweep(root: Path, component: str = "", *, grace_seconds: float = 5.0) -> int:
    """End every process of the environment, also those that are being born meanwhile; return how many there were."""
    ended = 0
    deadline = time.monotonic() + grace_seconds + 30
    while (left := of_environment(root, component)) and time.monotonic() < deadline:
        ended += len(left)
        end(left, grace_seconds)
        grace_seconds = 0.0  # what appears later was started by something that is gone
    return ended


def _send(processes: Iterable[psutil.Process], number: signal.Signals) -> list[psutil.Process]:
    reached = []
    for process in processes:
        try:
            process.send_signal(number)
        except psutil.Error:
            continue  # it ended by itself
        reached.append(process)
    return reached
