"""Fits on a Ray cluster, by Ray Tune: one experiment and one long-lived actor per core for the whole run.

The only module of the line that imports ray. What to try follows from the seed, and what is done from the trial log, so
Tune is not asked to choose: its searcher hands out the tasks of all stages in their order, and each is a trial. Left to
itself, Tune ends every idle actor but one as soon as no trial waits, as at the end of each stage; the scheduler here
holds an actor whose trial is done until the next trial takes it over.
"""

import logging
import os
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final

import ray
from ray import ObjectRef, cloudpickle, tune
from ray.exceptions import RayActorError
from ray.tune.execution.class_cache import ENV_VARS_TO_PROPAGATE
from ray.tune.experiment import Trial
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from drivetrain.api.errors import ReportedError
from drivetrain.pipelines.work import LocalTrials, Material, Outcome, Task

START_DEADLINE: Final = 180.0
"""Seconds in which the first actor must run; a cluster that is still filling up takes its time."""
_QUIET: Final = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1e9",
}
"""No output on the terminal, no files of results, no state of the experiment between its begin and its end."""

Answers = SimpleQueue[tuple[int, Outcome] | ReportedError]


class Fit(tune.Trainable):
    """A trial: one fit, or none when it is there to start an actor. The rows stay on the actor from trial to trial."""

    def setup(self, config: dict[str, Any]) -> None:
        self._rows: ObjectRef[Material] | None = None
        self._trials = LocalTrials()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Tells Tune that the actor can take the next trial, whose config it has by then."""
        return True

    def step(self) -> dict[str, Any]:
        task, rows = self.config["task"], self.config["rows"]
        if task is None:
            return {}
        if rows != self._rows:
            self._trials.load(ray.get(rows))
            self._rows = rows
        ((_, outcome),) = self._trials.run([task])
        return {"outcome": outcome}


@dataclass(frozen=True, slots=True)
class _Asked:
    """A task on its way through Tune, and who waits for it."""

    index: int
    task: Task | None
    rows: "ObjectRef[Material] | None"
    answers: Answers


class _Backlog(Searcher):
    """What Tune tries next: the tasks in the order in which they were asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = threading.Event()
        """A trial has run, or will never."""
        self.closed = False
        self._changed = threading.Condition()
        self._waiting: deque[_Asked] = deque()
        self._running: dict[str, _Asked] = {}
        self._limit = 1
        self._handed = False
        self._ended: ReportedError | None = None

    def ask(self, asked: Sequence[_Asked]) -> None:
        """Queues tasks; those that no one will do any more are answered at once."""
        with self._changed:
            if self._ended is None:
                self._waiting += asked
                self._changed.notify()
                return
            for one in asked:
                one.answers.put(self._ended)

    def tell(self, trial: str, outcome: Outcome | None) -> None:
        with self._changed:
            asked = self._running.pop(trial, None)
        if asked is not None and outcome is not None:
            asked.answers.put((asked.index, outcome))

    def fail(self, error: ReportedError) -> None:
        """Ends the experiment: whoever waits, or will, hears of the error."""
        with self._changed:
            self._ended = self._ended or error
            for asked in (*self._running.values(), *self._waiting):
                asked.answers.put(self._ended)
            self._running.clear()
            self._waiting.clear()
            self._changed.notify()
        self.begun.set()

    def close(self) -> None:
        with self._changed:
            self.closed = True
            self._changed.notify()

    def handed(self) -> bool:
        """Whether a trial was handed out since the last call."""
        handed, self._handed = self._handed, False
        return handed

    def suggest(self, trial_id: str) -> Any:
        """The next trial's config; one in each step of Tune's loop, so that each can be given a held actor."""
        with self._changed:
            if not self._running:  # nothing can happen in Tune either; its loop would not sleep
                self._changed.wait_for(lambda: self._waiting or self.closed or self._ended)
            if self.closed or self._ended:
                return Searcher.FINISHED
            if self._handed or not self._waiting or len(self._running) >= self._limit:
                return None
            asked = self._running[trial_id] = self._waiting.popleft()
            self._handed = True
            return {"task": asked.task, "rows": asked.rows}

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        """Counts itself: for Tune a held trial still runs."""
        self._limit = max_concurrent
        return True

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing: the outcome was told as soon as it was there."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the trial log is what a new attempt goes on from."""


class _Holding(FIFOScheduler):
    """Keeps a trial that is done, and with it its actor, until the next trial takes the actor over."""

    def __init__(self, backlog: _Backlog) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Ray's has no annotations
        self._backlog = backlog
        self._held: list[Trial] = []

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        self._held.append(trial)
        return FIFOScheduler.NOOP

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        """Before Tune gives the new trial an actor: ends a held trial, whose actor is then the one that it finds."""
        handed = self._backlog.handed()
        if self._backlog.closed:
            for trial in tuple(tune_controller.get_live_trials()):
                tune_controller.stop_trial(trial)
        elif handed and self._held:
            tune_controller.stop_trial(self._held.pop())


@dataclass(eq=False)
class _Listener(TrialProgressCallback):
    """Passes on what happens to trials, in place of the callback that prints it."""

    backlog: _Backlog
    busy: dict[str, Any] = field(default_factory=dict)
    """The actors at work, by trial."""

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self.busy[trial.trial_id] = trial.temporary_state.ray_actor
        self.backlog.begun.set()

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        # Taken out, because Tune keeps each trial's last result to the end, and the outcome may hold a whole model.
        outcome = result.pop("outcome", None)
        del self.busy[trial.trial_id]
        self.backlog.tell(trial.trial_id, outcome)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self.busy.pop(trial.trial_id, None)
        pickled, text = trial.pickled_error_file, trial.error_file
        error = cloudpickle.loads(Path(pickled).read_bytes()) if pickled else RuntimeError(Path(text or "").read_text())
        self.backlog.fail(_lost(error))

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Nothing: it was passed on as a result."""


class RayTrials:
    """Runs fits as trials of one Tune experiment. Raises ReportedError when Ray cannot give or keep the actors."""

    def __init__(self, folder: Path, parallel: int | None = None, deadline: float = START_DEADLINE) -> None:
        self._folder = folder
        self._parallel = parallel
        self._deadline = deadline
        self._backlog = _Backlog()
        self._listener = _Listener(self._backlog)
        self._experiment: threading.Thread | None = None
        self._connected = False
        self._rows: ObjectRef[Material] | None = None

    def start(self) -> None:
        """Begins to start the actors, one for each trial that may run at a time; they import beside what comes next."""
        if self._experiment is not None:
            return
        if not ray.is_initialized():
            ray.init(log_to_driver=False, configure_logging=False)
            self._connected = True
        workers = _workers(self._parallel)
        self._backlog.ask([_Asked(0, None, None, SimpleQueue())] * workers)
        self._experiment = threading.Thread(target=self._run, args=(workers,), name="tune", daemon=True)
        self._experiment.start()

    def load(self, material: Material) -> None:
        self.start()
        self._rows = ray.put(material)

    def run(self, tasks: Sequence[Task]) -> Iterator[tuple[int, Outcome]]:
        assert self._rows is not None, "load comes first"
        answers: Answers = SimpleQueue()
        self._backlog.ask([_Asked(index, task, self._rows, answers) for index, task in enumerate(tasks)])
        if not self._backlog.begun.wait(self._deadline):
            raise ReportedError(
                "WorkersMissing",
                f"The cluster did not start a trial actor within {self._deadline:.0f} s.",
                remedy="Give the cluster more CPUs, or take from it what else holds them.",
            )
        for _ in tasks:
            answer = answers.get()
            if isinstance(answer, ReportedError):
                raise answer
            yield answer

    def close(self) -> None:
        """Ends the actors, also those at work; their cores are free again."""
        if self._experiment is not None:
            self._backlog.close()
            for actor in tuple(self._listener.busy.values()):
                ray.kill(actor)
            self._experiment.join()
        if self._connected:
            ray.shutdown()

    def _run(self, workers: int) -> None:
        os.environ.update(_QUIET)
        logging.getLogger("ray.tune").setLevel(logging.ERROR)
        # An actor needs no credentials, and Ray shows an actor's environment on its dashboard.
        ENV_VARS_TO_PROPAGATE.difference_update({name for name in ENV_VARS_TO_PROPAGATE if name.startswith("AWS_")})
        try:
            tune.run(
                Fit,
                name="trials",
                storage_path=str(self._folder),
                trial_dirname_creator=lambda trial: trial.trial_id,
                resources_per_trial={"cpu": 1},
                num_samples=-1,
                max_concurrent_trials=workers,
                reuse_actors=True,
                search_alg=self._backlog,
                scheduler=_Holding(self._backlog),
                callbacks=[self._listener],
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                fail_fast=True,
                raise_on_failed_trial=False,
                verbose=0,
            )
            ended: Exception = RuntimeError("Ray Tune's experiment is over")
        except Exception as error:
            ended = error
        self._backlog.fail(_lost(ended))


@contextmanager
def ray_trials(folder: Path, parallel: int | None = None) -> Iterator[RayTrials]:
    """Trials on the cluster that this process belongs to (RAY_ADDRESS), or on a local one where there is none.

    As many at a time as `parallel` says, else one a core, and never more than the cluster has CPUs. Nothing is started
    before it is needed. Tune keeps its few files below `folder`.
    """
    trials = RayTrials(folder, parallel)
    try:
        yield trials
    finally:
        trials.close()


def _workers(parallel: int | None) -> int:
    cluster: Any = ray  # its functions carry no annotations
    declared = int(cluster.cluster_resources().get("CPU", 1))
    # Embedded clusters declare more CPUs than the machine has, so that everything fits; cores are what helps.
    nodes = [node for node in cluster.nodes() if node["Alive"]]
    cores = (os.cpu_count() or 1) * max(len(nodes), 1)
    return max(1, min(declared, parallel or cores))


def _lost(error: Exception) -> ReportedError:
    reason = "WorkerLost" if isinstance(error, RayActorError) else "WorkerFailed"
    return ReportedError(
        reason,
        f"A trial actor ended or failed: {(str(error).splitlines() or [type(error).__name__])[-1][:300]}.",
        remedy="Another attempt goes on from the trial log. If it ends for lack of memory, ask for more per worker.",
    )
