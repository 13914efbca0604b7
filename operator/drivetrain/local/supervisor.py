"""The process that keeps the environment running: `python -m drivetrain.local.supervisor STATE_DIR`.

One task per component observes, asks supervision.decide, and acts. What it sees is in status.json. SIGTERM ends
everything in order and then itself. A supervisor that was killed leaves components behind;
the next one ends them first.
"""

import argparse
import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import ssl
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import aiohttp

from drivetrain.api.errors import DrivetrainError
from drivetrain.local import processes, setup, supervision
from drivetrain.local.binaries import prepare as prepare_binaries
from drivetrain.local.components import (
    COMPONENT,
    MARK,
    SET_UP_CLUSTER,
    SET_UP_NEEDS,
    SET_UP_STORE,
    Component,
    HttpProbe,
)
from drivetrain.local.components import components as all_components
from drivetrain.local.reports import ComponentStatus, EnvironmentStatus
from drivetrain.local.settings import Settings, prepare, write_private
from drivetrain.local.statedir import StateDir
from drivetrain.local.supervision import Phase

LOG = logging.getLogger("drivetrain.local.supervisor")
TICK_SECONDS = 0.25
PROBE_SECONDS = 10.0
QUIET_PROBE_SECONDS = 5.0
"""Between probes of a component that is ready; before that, every tick."""
LOG_BYTES = 50_000_000


@dataclass(slots=True)
class Run:
    """One component while it runs: the only state that changes."""

    component: Component
    phase: Phase = Phase.WAITING
    since: float = 0.0
    process: asyncio.subprocess.Process | None = None
    answered_at: float | None = None
    probed_at: float = 0.0
    crashes: int = 0
    restarts: int = 0
    message: str = ""
    changed: float = field(default_factory=time.time)

    def status(self) -> ComponentStatus:
        """What a person is told of it."""
        return ComponentStatus(
            name=self.component.name,
            phase=self.phase.value,
            pid=self.process.pid if self.process and self.process.returncode is None else None,
            restarts=self.restarts,
            crashes=self.crashes,
            message=self.message,
            changed=self.changed,
            address=self.component.address,
        )


class Supervisor:
    """Keeps components running until `stop` is set."""

    def __init__(
        self, state: StateDir, components: tuple[Component, ...], steps: Mapping[str, Callable[[], Awaitable[None]]]
    ) -> None:
        self._state = state
        self._runs = {component.name: Run(component) for component in components}
        self._steps = steps
        self._done: dict[str, bool] = dict.fromkeys(steps, False)
        self._step_message: dict[str, str] = dict.fromkeys(steps, "")
        self._stop = asyncio.Event()
        self._tls = ssl.create_default_context(cafile=str(state.secrets / "ca.crt"))

    def stop(self) -> None:
        """Ask for an orderly end."""
        self._stop.set()

    async def run(self) -> None:
        """Start everything and keep it running; return after everything has been stopped."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PROBE_SECONDS)) as session:
            tasks = [asyncio.create_task(self._keep(run, session)) for run in self._runs.values()]
            tasks += [asyncio.create_task(self._set_up(name)) for name in self._steps]
            stopping = asyncio.create_task(self._stop.wait())
            done, _ = await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
            # set-up steps end by themselves; a keeper that ends has failed, and so has the supervisor
            while not stopping.done() and not any(task.exception() for task in done):
                pending = [task for task in (*tasks, stopping) if not task.done()]
                done, _ = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()
            failures = [
                result
                for result in await asyncio.gather(*tasks, return_exceptions=True)
                if isinstance(result, Exception)
            ]
            stopping.cancel()
        await self._stop_all()
        if failures:
            raise failures[0]

    async def _keep(self, run: Run, session: aiohttp.ClientSession) -> None:
        while True:
            now = time.monotonic()
            if (
                run.phase in (Phase.STARTING, Phase.READY)
                and self._probe_due(run, now)
                and await self._answers(run, session)
            ):
                run.answered_at = time.monotonic()
            now = time.monotonic()
            seen = supervision.Seen(
                phase=run.phase,
                since=run.since,
                alive=run.process is not None and run.process.returncode is None,
                answered_at=run.answered_at,
                crashes=run.crashes,
                needs_ready=all(self._is_ready(name) for name in run.component.needs),
            )
            await self._act(run, supervision.decide(run.component, seen, now), now)
            await asyncio.sleep(TICK_SECONDS)

    async def _act(self, run: Run, step: supervision.Step, now: float) -> None:
        match step:
            case supervision.Start():
                run.process = await self._start(run.component)
                run.answered_at = None
                self._enter(run, Phase.STARTING, now)
            case supervision.BecomeReady():
                self._enter(run, Phase.READY, now)
            case supervision.Recover():
                run.crashes = 0
                self._enter(run, Phase.READY, now)
            case supervision.BackOff(why):
                code = run.process.returncode if run.process else None
                run.message = f"{why} (exit status {code})" if code is not None else why
                LOG.warning("%s: %s; it is started again", run.component.name, run.message)
                await self._sweep(run)
                run.crashes += 1
                run.restarts += 1
                self._enter(run, Phase.BACKING_OFF, time.monotonic())
            case supervision.Retry():
                self._enter(run, Phase.WAITING, now)
            case supervision.Wait():
                pass

    def _enter(self, run: Run, phase: Phase, now: float) -> None:
        LOG.info("%s: %s", run.component.name, phase)
        run.phase, run.since, run.changed = phase, now, time.time()
        self.write_status()

    async def _set_up(self, name: str) -> None:
        while not self._done[name]:
            if all(self._is_ready(needed) for needed in SET_UP_NEEDS[name]):
                try:
                    await self._steps[name]()
                except (DrivetrainError, OSError) as error:
                    LOG.warning("%s failed and is tried again: %s", name, error)
                    self._step_message[name] = str(error)
                else:
                    self._done[name] = True
                    self._step_message[name] = ""
                self.write_status()
            await asyncio.sleep(TICK_SECONDS)

    def _is_ready(self, name: str) -> bool:
        if name in self._done:
            return self._done[name]
        return name not in self._runs or self._runs[name].phase is Phase.READY

    def _probe_due(self, run: Run, now: float) -> bool:
        if run.phase is Phase.STARTING or now - run.probed_at >= QUIET_PROBE_SECONDS:
            run.probed_at = now
            return True
        return False

    async def _answers(self, run: Run, session: aiohttp.ClientSession) -> bool:
        probe = run.component.probe
        if not isinstance(probe, HttpProbe):
            try:
                touched = probe.file.stat().st_mtime
            except FileNotFoundError:
                return False
            return touched >= run.changed if run.phase is Phase.STARTING else time.time() - touched < probe.seconds
        headers = {"Authorization": f"Bearer {probe.token}"} if probe.token else {}
        try:
            async with session.get(probe.url, headers=headers, ssl=self._tls) as response:
                return response.status < 300
        except (TimeoutError, aiohttp.ClientError):
            return False

    async def _start(self, component: Component) -> asyncio.subprocess.Process:
        log = self._state.log(component.name)
        if log.exists() and log.stat().st_size > LOG_BYTES:
            log.replace(log.with_suffix(".log.1"))
        environment = {**os.environ, **component.environment, MARK: str(self._state.root), COMPONENT: component.name}
        with log.open("ab") as output:
            return await asyncio.create_subprocess_exec(
                *component.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
                cwd=self._state.root,
                env=environment,
            )

    def write_status(self) -> None:
        """Publish what is seen, in one step."""
        steps = [
            ComponentStatus(name=name, phase="Ready" if done else "Waiting", message=self._step_message[name])
            for name, done in self._done.items()
        ]
        status = EnvironmentStatus(
            supervisor=os.getpid(), components=(*(run.status() for run in self._runs.values()), *steps)
        )
        write_private(self._state.status, status.model_dump_json(indent=1))

    async def _stop_all(self) -> None:
        for group in supervision.stop_order(tuple(run.component for run in self._runs.values()), SET_UP_NEEDS):
            LOG.info("stopping %s", ", ".join(group))
            await asyncio.gather(*(self._end(self._runs[name]) for name in group))
        await asyncio.to_thread(processes.sweep, self._state.root)

    async def _end(self, run: Run) -> None:
        if run.process is not None and run.process.returncode is None:
            run.process.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(run.process.wait(), run.component.stop_seconds)
        await self._sweep(run)

    async def _sweep(self, run: Run) -> None:
        """End what is left of a component; its process began the session of that id."""
        sessions = [run.process.pid] if run.process is not None else []
        await asyncio.to_thread(partial(processes.sweep, self._state.root, run.component.name, sessions=sessions))


async def supervise(state: StateDir, without: frozenset[str]) -> None:
    """Run the environment in `state` until SIGTERM or SIGINT."""
    ended = processes.sweep(state.root)
    if ended:
        LOG.warning("ended %d processes that an earlier supervisor had left behind", ended)
    binaries = prepare_binaries(lambda component, text: LOG.info("%s: %s", component, text))
    settings = prepare(state)
    sidecar = setup.prepare_folders(state)
    wanted = tuple(
        component
        for component in all_components(state, settings, binaries.programs, sidecar=sidecar)
        if component.name not in without
    )
    supervisor = Supervisor(state, wanted, _steps(state, settings, binaries.crds))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, supervisor.stop)
    supervisor.write_status()
    await supervisor.run()


def _steps(state: StateDir, settings: Settings, crds: Path) -> dict[str, Callable[[], Awaitable[None]]]:
    return {
        SET_UP_CLUSTER: lambda: setup.set_up_cluster(state, settings, crds),
        SET_UP_STORE: lambda: asyncio.to_thread(setup.set_up_store, settings),
    }


def main() -> int:
    """Hold the lock and supervise; exit status 3 says that another supervisor already does."""
    parser = argparse.ArgumentParser(prog="drivetrain.local.supervisor")
    parser.add_argument("state_dir", type=Path)
    parser.add_argument("--without", action="append", default=[])
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    state = StateDir(arguments.state_dir)
    state.root.mkdir(parents=True, exist_ok=True)
    with state.lock.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return 3
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        try:
            asyncio.run(supervise(state, frozenset(arguments.without)))
        except DrivetrainError as error:
            LOG.error("%s", error)
            return 1
        finally:
            state.status.unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
