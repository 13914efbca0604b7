"""The bench: one run's rows as matrices, and the trials on them, remembered in the trial log."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import polars as pl

from drivetrain.api.canonical import Hashable, digest
from drivetrain.api.errors import ContractError
from drivetrain.api.runspec import RunSpec
from drivetrain.api.v1alpha1.objective import MetricName
from drivetrain.pipelines.ensembles import Recipe, describe
from drivetrain.pipelines.evaluation import truth_of
from drivetrain.pipelines.features import FeaturePlan, directed, feed_of, matrices
from drivetrain.pipelines.gates import EFFECT_BOUND
from drivetrain.pipelines.metrics import badness
from drivetrain.pipelines.models import Sample
from drivetrain.pipelines.response import probes
from drivetrain.pipelines.rows import TrainingRows
from drivetrain.pipelines.trials import TrialLog, TrialRecord
from drivetrain.pipelines.work import Material, Outcome, Rows, Task, TrialRunner

VIOLATIONS = "leverViolations"
"""Beside a trial's metrics: share of lever steps against a declared effect, the worst lever's."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A recipe and how it did on the validation rows."""

    recipe: Recipe
    metrics: Mapping[str, float]
    seconds: float
    failure: str = ""


@dataclass(slots=True)
class Bench:
    """Prepares the matrices when the first fit needs them, and hands them to the runner once."""

    rows: TrainingRows
    spec: RunSpec
    runner: TrialRunner
    log: TrialLog
    plan: FeaturePlan
    _loaded: bool = field(default=False, init=False)

    @property
    def metric(self) -> MetricName:
        """The metric that decides."""
        return self.spec.spec.tuning.metric or self.spec.objective.model_metric.name

    def trials(self, recipes: Sequence[Recipe], advance: Callable[[float], None]) -> tuple[Trial, ...]:
        """Fits each recipe on the training rows and measures it on the validation rows, unless the log knows it."""
        tasks = [Task(recipe, "train", self.spec.spec.tuning.seed) for recipe in recipes]
        keys = [self._key(task) for task in tasks]
        finished = self.log.finished()
        found = {at: _remembered(recipes[at], finished[key]) for at, key in enumerate(keys) if key in finished}
        waiting = [at for at in range(len(tasks)) if at not in found]
        for done, (position, outcome) in enumerate(self.fits([tasks[at] for at in waiting]), start=1):
            at = waiting[position]
            trial = _finished(recipes[at], outcome)
            if not trial.failure:
                name, parameters = describe(trial.recipe)
                self.log.append(TrialRecord(keys[at], name, parameters, trial.metrics, trial.seconds))
            found[at] = trial
            advance(done / len(waiting))
        return tuple(found[at] for at in range(len(tasks)))

    def fits(self, tasks: Sequence[Task]) -> Iterator[tuple[int, Outcome]]:
        """Runs tasks on the workers; each outcome is there as soon as its fit ends."""
        if not tasks:
            return
        if not self._loaded:
            self.runner.load(material(self.rows, self.spec, self.plan))
            self._loaded = True
        yield from self.runner.run(tasks)

    def ranked(self, trials: Sequence[Trial]) -> list[Trial]:
        """Trials that did not fail, the best first; breaking a declared effect is worse than any loss."""

        def order(indexed: tuple[int, Trial]) -> tuple[bool, float, int]:
            at, trial = indexed
            return not keeps_effects(trial), badness(self.metric, trial.metrics[self.metric]), at

        usable = [(at, trial) for at, trial in enumerate(trials) if not trial.failure and self.metric in trial.metrics]
        return [trial for _, trial in sorted(usable, key=order)]

    def facts(self) -> Hashable:
        """What every fit depends on, beside its recipe."""
        data, run = self.spec.data, self.spec.spec
        return {
            "version": self.rows.version,
            "columns": [column.model_dump(mode="json") for column in data.columns],
            "target": data.target.model_dump(mode="json"),
            "split": data.split.model_dump(mode="json"),
            "levers": [lever.model_dump(mode="json") for lever in self.spec.levers],
            "window": None if run.window is None else run.window.model_dump(mode="json"),
            "seed": run.tuning.seed,
        }

    def _key(self, task: Task) -> str:
        kind = type(task.recipe).__name__
        return digest({"facts": self.facts(), "kind": kind, "recipe": _plain(task.recipe), "rows": task.rows})[:32]


def keeps_effects(trial: Trial) -> bool:
    """Whether the response to every lever keeps to its declared effect, as the gate will ask."""
    return trial.metrics[VIOLATIONS] <= EFFECT_BOUND


def material(rows: TrainingRows, spec: RunSpec, plan: FeaturePlan) -> Material:
    """The matrices, as the published graph computes them, and the lever responses to watch.

    Raises ContractError when a class is missing from a part or half that a model is fitted on.
    """
    target = spec.data.target
    plain, scaled = matrices(plan, feed_of(rows.frame, plan.inputs))
    sample = Sample(plain, scaled, truth_of(rows.frame, target), rows.weight, plan.directions)
    watched = probes(rows.frame.filter(pl.Series(rows.validation)), plan, directed(spec.levers, target))
    made = Material(sample, target, rows.train, rows.validation, rows.half, watched)
    parts: tuple[Rows, ...] = ("train", "first", "second")
    for part in parts:
        _check_classes(made.rows(part), made, part)
    if not np.any(rows.validation & (rows.weight > 0)):
        raise ContractError("TooFewRows", "No validation row counts.", remedy="Add rows, or widen the window.")
    return made


def _check_classes(sample: Sample, made: Material, part: Rows) -> None:
    words = {"train": "training part", "first": "first half", "second": "second half"}[part]
    if len(sample) < 2:
        cause = f"The {words} has {len(sample)} rows."
        raise ContractError("TooFewRows", cause, remedy="Add rows, or widen the window.")
    if made.target.type == "Regression":
        return
    names = made.target.classes or ("0", "1")
    missing = sorted(set(range(len(names))) - set(sample.target.astype(np.int64).tolist()))
    if missing:
        raise ContractError(
            "ClassMissing",
            f"Class {names[missing[0]]} of {made.target.name} does not occur in the {words}.",
            remedy="Add rows with it, or declare fewer classes.",
        )


def _remembered(recipe: Recipe, record: TrialRecord) -> Trial:
    return Trial(recipe, dict(record.metrics), record.seconds)


def _finished(recipe: Recipe, outcome: Outcome) -> Trial:
    metrics = {**outcome.metrics, VIOLATIONS: outcome.violations}
    if not outcome.failure and not all(np.isfinite(value) for value in metrics.values()):
        return Trial(recipe, {}, outcome.seconds, "Its scores are not finite.")
    return Trial(recipe, metrics, outcome.seconds, outcome.failure)


def _plain(recipe: Recipe) -> dict[str, object]:
    return asdict(recipe)
