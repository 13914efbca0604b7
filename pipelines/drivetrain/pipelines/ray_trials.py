"""Fits on a Ray cluster: one long-lived actor per core for the whole run; the only module of the line that imports ray.

Actors are made once and reused for trials, ensembles and the final halves (twelve empty trials took Ray 2.60 37 to 69 s
with fresh actors and 10 s with reused ones). The rows lie once in the object store.
"""

import os
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError

from drivetrain.api.errors import ReportedError
from drivetrain.pipelines.work import LocalTrials, Material, Outcome, Task, TrialRunner

START_DEADLINE: Final = 180.0
"""Seconds in which all actors must answer; a cluster that is still filling up takes its time."""


class Worker:
    """One core's actor."""

    def __init__(self) -> None:
        self._trials = LocalTrials()

    def load(self, material: Material) -> None:
        """Takes the rows; also tells that the actor runs."""
        self._trials.load(material)

    def perform(self, task: Task) -> Outcome:
        """Does one fit."""
        ((_, outcome),) = self._trials.run([task])
        return outcome


class RayTrials:
    """Runs fits on actors, each busy with one at a time. Raises ReportedError when Ray cannot give or keep them."""

    def __init__(self, workers: int) -> None:
        kind = ray.remote(num_cpus=1)(Worker)
        self._actors: list[Any] = [kind.remote() for _ in range(workers)]

    def load(self, material: Material) -> None:
        shared = ray.put(material)
        try:
            ray.get([actor.load.remote(shared) for actor in self._actors], timeout=START_DEADLINE)
        except GetTimeoutError as error:
            raise ReportedError(
                "WorkersMissing",
                f"The cluster did not start {len(self._actors)} trial actors within {START_DEADLINE:.0f} s.",
                remedy="Lower tuning.parallelTrials, or give the cluster more CPUs.",
            ) from error
        except RayError as error:
            raise _lost(error) from error

    def run(self, tasks: Sequence[Task]) -> Iterator[tuple[int, Outcome]]:
        waiting = deque(enumerate(tasks))
        idle = list(self._actors)
        busy: dict[Any, tuple[int, Any]] = {}
        while waiting or busy:
            while waiting and idle:
                index, task = waiting.popleft()
                actor = idle.pop()
                busy[actor.perform.remote(task)] = (index, actor)
            (done,), _ = ray.wait(list(busy), num_returns=1)
            index, actor = busy.pop(done)
            idle.append(actor)
            try:
                outcome: Outcome = ray.get(done)
            except RayError as error:
                raise _lost(error) from error
            yield index, outcome

    def close(self) -> None:
        """Ends the actors; their cores are free again."""
        for actor in self._actors:
            ray.kill(actor)


@contextmanager
def ray_trials(parallel: int | None = None) -> Iterator[TrialRunner]:
    """Actors on the cluster that this process belongs to (RAY_ADDRESS), or on a local one where there is none.

    As many as `parallel` says, else one a core, and never more than the cluster has CPUs.
    """
    started = not ray.is_initialized()
    if started:
        ray.init(log_to_driver=False, configure_logging=False)
    try:
        trials = RayTrials(_workers(parallel))
        try:
            yield trials
        finally:
            trials.close()
    finally:
        if started:
            ray.shutdown()


def _workers(parallel: int | None) -> int:
    cluster: Any = ray  # its functions carry no annotations
    declared = int(cluster.cluster_resources().get("CPU", 1))
    # Embedded clusters declare more CPUs than the machine has, so that everything fits; cores are what helps.
    nodes = [node for node in cluster.nodes() if node["Alive"]]
    cores = (os.cpu_count() or 1) * max(len(nodes), 1)
    return max(1, min(declared, parallel or cores))


def _lost(error: RayError) -> ReportedError:
    reason = "WorkerLost" if isinstance(error, RayActorError) else "WorkerFailed"
    return ReportedError(
        reason,
        f"A trial actor ended or failed: {str(error).splitlines()[-1][:300]}.",
        remedy="Another attempt goes on from the trial log. If it ends for lack of memory, ask for more per worker.",
    )
