"""Kills that a story brings about by itself: which program dies, and at what point of what the API server tells."""

import signal
import threading
import urllib.error
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import psutil

from drivetrain.api.documents import text, value
from drivetrain.api.errors import ComponentError
from drivetrain.api.kinds import DEPLOYMENT, TRAINING_RUN
from drivetrain.local.environment import addresses, status
from drivetrain.local.processes import of_environment
from drivetrain.local.statedir import StateDir
from tests.embedded.conftest import Embedded

Point = Callable[[Embedded], bool]
POLL_SECONDS = 0.2
RAY_HEAD = ("gcs_server", "raylet")
"""Without either of them Ray is lost, with its jobs and replicas."""
REPLICA = ":Endpoint"
"""Part of the title that Serve gives the process of an endpoint's replica."""


def trains(run: str) -> Point:
    """While a run is past its data: something is lost when it dies."""

    def reached(there: Embedded) -> bool:
        found = there.get(TRAINING_RUN, run)
        return found is not None and text(found, "status", "stage") in ("Selection", "Tuning", "Ensembles")

    return reached


def rolls_out(run: str, deployment: str, *, step: int) -> Point:
    """While a run's version is a candidate at this step, counted from 0."""

    def reached(there: Embedded) -> bool:
        made, found = there.get(TRAINING_RUN, run), there.get(DEPLOYMENT, deployment)
        if made is None or found is None or not text(made, "status", "modelVersion"):
            return False
        candidate = text(found, "status", "candidate", "version")
        return candidate == text(made, "status", "modelVersion") and value(found, "status", "step") == step

    return reached


@dataclass(frozen=True, slots=True)
class Kill:
    """`victims` die together when `point` is reached: components, `ray` (one program of its head), `replica`."""

    name: str
    victims: tuple[str, ...]
    point: Point


@dataclass(slots=True)
class Killer:
    """Watches an environment that another program starts, and kills in it; the seed draws the moments."""

    state: StateDir
    kills: Sequence[Kill]
    rng: np.random.Generator
    done: list[str] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> "Killer":
        self._thread = threading.Thread(target=self._watch, name="killer", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        assert self._thread is not None
        self._thread.join()

    def _watch(self) -> None:
        left = list(self.kills)
        while left and not self._over.wait(POLL_SECONDS):
            for each in [each for each in left if self._reached(each.point)]:
                self._over.wait(float(self.rng.uniform(0.0, 1.0)))
                killed = [kill(self.state, victim, self.rng) for victim in each.victims]
                if all(killed):
                    left.remove(each)
                    self.done.append(each.name)

    def _reached(self, point: Point) -> bool:
        try:
            return point(Embedded(self.state, addresses(self.state)))
        except (ComponentError, OSError, urllib.error.URLError):
            return False  # not up yet


def kill(state: StateDir, victim: str, rng: np.random.Generator) -> bool:
    """Sends SIGKILL to what runs now; says whether anything did."""
    if victim in ("ray", "replica"):
        title = REPLICA if victim == "replica" else str(rng.choice(RAY_HEAD))
        found = [each for each in of_environment(state.root, "ray") if title in _title(each)]
    else:
        found = [psutil.Process(each.pid) for each in status(state) if each.name == victim and each.pid is not None]
    for process in found:
        process.send_signal(signal.SIGKILL)
    return bool(found)


def _title(process: psutil.Process) -> str:
    """The start of what it calls itself; arguments of other programs may name it too."""
    return " ".join((process.name(), *process.cmdline()[:1]))
