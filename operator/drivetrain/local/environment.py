"""The embedded mode as the command line uses it: `up`, `down`, `status`, `logs`."""

import contextlib
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from drivetrain.api.errors import ComponentError
from drivetrain.local import binaries, processes
from drivetrain.local.components import BUCKET, MARK
from drivetrain.local.reports import ComponentStatus, EnvironmentStatus
from drivetrain.local.settings import Settings
from drivetrain.local.setup import STORE_SECRET
from drivetrain.local.statedir import StateDir
from drivetrain.local.supervision import CRASHES_UNTIL_HOPELESS

Progress = Callable[[str, str], None]
"""Called with the name of a component and what happens to it."""

UP_SECONDS = 600.0
DOWN_SECONDS = 90.0


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a running environment is reached."""

    kubeconfig: Path
    api: str
    mlflow: str
    ray_dashboard: str
    serve: str
    s3: str
    bucket: str
    s3_secret: str
    s3_access_key: str = field(repr=False)
    s3_secret_key: str = field(repr=False)
    ray_token: str = field(repr=False)


def up(state: StateDir, progress: Progress, *, without: frozenset[str] = frozenset()) -> Addresses:
    """Start what does not run yet, wait until everything is ready, and return the addresses.

    A second call changes nothing. It may be interrupted at any time and run again. `without` names components that
    somebody else runs (an operator in a debugger). Raises ComponentError that names what does not start, with the end
    of its log.
    """
    if not _supervisor(state):
        binaries.prepare(progress)
        _start_supervisor(state, without)
    _follow(state, progress)
    return addresses(state)


def addresses(state: StateDir) -> Addresses:
    """Return where the environment is reached, or would be. Raises ComponentError when there has never been one."""
    if not state.settings.exists():
        raise ComponentError(f"There is no environment in {state.root}.", remedy="Run `drivetrain up`.")
    settings = Settings.model_validate_json(state.settings.read_text())
    return Addresses(
        kubeconfig=state.kubeconfig,
        api=settings.api_url,
        mlflow=settings.mlflow_url,
        ray_dashboard=settings.ray_url,
        serve=settings.serve_url,
        s3=settings.s3_url,
        bucket=BUCKET,
        s3_secret=STORE_SECRET,
        s3_access_key=settings.s3_access_key,
        s3_secret_key=settings.s3_secret_key,
        ray_token=settings.ray_token,
    )


def down(state: StateDir, progress: Progress) -> None:
    """Stop everything; data stays. Returns when no process of the environment is left. Raises ComponentError."""
    sessions = processes.sessions_of(processes.of_environment(state.root))
    if supervisor := _supervisor(state):
        progress("supervisor", "stopping everything")
        with contextlib.suppress(psutil.NoSuchProcess):
            supervisor.terminate()
            with contextlib.suppress(psutil.TimeoutExpired):
                supervisor.wait(DOWN_SECONDS)
    ended = processes.sweep(state.root, sessions=sessions)
    if ended:
        progress("supervisor", f"ended {ended} processes that it had left behind")
    left = processes.of_environment(state.root, sessions=sessions)
    if left:
        names = ", ".join(f"{process.name()} ({process.pid})" for process in left)
        raise ComponentError(f"These processes do not end: {names}.", remedy="End them by hand.")
    state.status.unlink(missing_ok=True)
    progress("supervisor", "everything is stopped")


def status(state: StateDir) -> tuple[ComponentStatus, ...]:
    """Return what is known of every component; empty when nothing runs."""
    report = _report(state) if _supervisor(state) else None
    return report.components if report else ()


def logs(state: StateDir, component: str, *, lines: int = 200) -> tuple[str, ...]:
    """Return the last lines of a component's log. Raises ComponentError for a component without one."""
    path = state.log(component)
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in state.logs.glob("*.log"))) or "none yet"
        raise ComponentError(f"{component} has no log.", remedy=f"There are logs of: {known}.")
    with path.open(errors="replace") as file:
        return tuple(line.rstrip("\n") for line in deque(file, maxlen=lines))


def follow(state: StateDir, component: str, *, lines: int = 20, pause: float = 0.25) -> Iterator[str]:
    """Yield the last lines of a log, and then each new one for as long as it is asked for."""
    yield from logs(state, component, lines=lines)
    with state.log(component).open(errors="replace") as file:
        file.seek(0, os.SEEK_END)
        while True:
            if line := file.readline():
                yield line.rstrip("\n")
            else:
                time.sleep(pause)


def _supervisor(state: StateDir) -> psutil.Process | None:
    try:
        process = psutil.Process(int(state.lock.read_text()))
        # a process id may have been given to another program since
        ours = process.environ().get(MARK) == str(state.root) and process.status() != psutil.STATUS_ZOMBIE
    except (OSError, ValueError, psutil.Error):
        return None
    return process if ours else None


def _report(state: StateDir) -> EnvironmentStatus | None:
    try:
        return EnvironmentStatus.model_validate_json(state.status.read_text())
    except FileNotFoundError:
        return None


def _start_supervisor(state: StateDir, without: frozenset[str]) -> None:
    state.logs.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "drivetrain.local.supervisor", str(state.root)]
    for name in sorted(without):
        command += ["--without", name]
    with state.log("supervisor").open("ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=state.root,
            env={**os.environ, MARK: str(state.root)},
        )
    deadline = time.monotonic() + 60
    while not (_supervisor(state) and _report(state)):
        if process.poll() not in (None, 3):  # 3: another `up` was faster, and its supervisor is as good
            raise ComponentError("The supervisor ended:\n" + "\n".join(logs(state, "supervisor", lines=10)))
        if time.monotonic() > deadline:
            raise ComponentError("The supervisor does not start.", remedy=f"See {state.log('supervisor')}.")
        time.sleep(0.1)


def _follow(state: StateDir, progress: Progress) -> None:
    told: dict[str, str] = {}
    began = time.monotonic()
    while True:
        report = _report(state)
        if report is None or _supervisor(state) is None:
            raise ComponentError("The supervisor ended:\n" + "\n".join(logs(state, "supervisor", lines=10)))
        for component in report.components:
            text = component.phase.lower() + (
                f": {component.message}" if component.message and component.phase != "Ready" else ""
            )
            if told.get(component.name) != text:
                told[component.name] = text
                progress(component.name, f"{text} ({time.monotonic() - began:.0f} s)")
            if component.crashes >= CRASHES_UNTIL_HOPELESS:
                raise ComponentError(
                    f"{component.name} does not start: {component.message}. The end of its log:\n"
                    + "\n".join(logs(state, component.name, lines=10)),
                    remedy=f"The whole log is in {state.log(component.name)}; `drivetrain down` ends the attempts.",
                )
        if report.ready:
            return
        if time.monotonic() - began > UP_SECONDS:
            waiting = ", ".join(component.name for component in report.components if component.phase != "Ready")
            raise ComponentError(
                f"Not ready after {UP_SECONDS:.0f} s: {waiting}.", remedy="See `drivetrain components`."
            )
        time.sleep(0.2)
