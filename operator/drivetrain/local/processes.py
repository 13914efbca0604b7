"""Processes of an environment: found by the variable that each inherits and by their sessions, ended as a whole.

Some of Ray's processes write their title over their environment, so the variable alone does not find them. But every
component begins a session of its own (supervisor.py), in which those stay.
"""

import os
import signal
import time
from collections.abc import Collection, Iterable
from pathlib import Path

import psutil

from drivetrain.local.components import COMPONENT, MARK


def of_environment(root: Path, component: str = "", sessions: Collection[int] = ()) -> tuple[psutil.Process, ...]:
    """Return all processes of this user that belong to the environment in `root`, or to one component of it.

    `sessions` are ids of sessions that are known to be the environment's even if no marked process is left in them.
    """
    marked: list[psutil.Process] = []
    others: list[tuple[psutil.Process, int]] = []
    known = set(sessions)
    for process in psutil.process_iter():
        if process.pid == os.getpid():
            continue
        try:
            environment = process.environ()
            session = os.getsid(process.pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
        except (psutil.Error, OSError):
            continue  # ended meanwhile, or another user's: neither is ours
        if MARK in environment:
            if environment[MARK] == str(root) and (not component or environment.get(COMPONENT) == component):
                marked.append(process)
                known.add(session)
        else:
            others.append((process, session))
    return (*marked, *(process for process, session in others if session in known - {os.getsid(0)}))


def sessions_of(processes: Iterable[psutil.Process]) -> frozenset[int]:
    """Return the sessions in which the processes are, as far as they still live."""
    found = set()
    for process in processes:
        try:
            found.add(os.getsid(process.pid))
        except ProcessLookupError:
            continue
    return frozenset(found - {os.getsid(0)})


def end(processes: Iterable[psutil.Process], grace_seconds: float) -> None:
    """Ask the processes to end, and kill those that still live after the grace period."""
    living = _send(processes, signal.SIGTERM)
    _, living = psutil.wait_procs(living, timeout=grace_seconds)
    psutil.wait_procs(_send(living, signal.SIGKILL), timeout=5)


def sweep(root: Path, component: str = "", *, sessions: Collection[int] = (), grace_seconds: float = 5.0) -> int:
    """End every process of the environment, also those that are being born meanwhile; return how many there were."""
    ended = 0
    known = set(sessions)
    deadline = time.monotonic() + grace_seconds + 30
    while (left := of_environment(root, component, known)) and time.monotonic() < deadline:
        known |= sessions_of(left)
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
