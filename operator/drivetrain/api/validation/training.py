"""Candidates, tuning, ensembles and gates: only what was tested is accepted."""

from collections.abc import Iterator
from datetime import datetime

from drivetrain.api.errors import Problem
from drivetrain.api.offers import ESTIMATORS, SWITCHES, TEXT_PARAMETERS, metrics_of
from drivetrain.api.v1alpha1.dataset import Target, TrainingWindow
from drivetrain.api.v1alpha1.project import DrivetrainProjectSpec
from drivetrain.api.v1alpha1.training import Candidate, ParameterValue, SearchRange, TrainingTemplate
from drivetrain.api.validation.names import check_distinct, check_unique, listed, nearest


def check_training(field: str, training: TrainingTemplate, spec: DrivetrainProjectSpec | None) -> Iterator[Problem]:
    """A template or a run's spec below `field`; checks that need the project are left out where it is not known."""
    target = spec.data.target if spec is not None else None
    yield from check_unique(training.candidates, f"{field}.candidates")
    for index, candidate in enumerate(training.candidates):
        place = f"{field}.candidates[{index}]"
        yield from _candidate(place, candidate, target)
        for name, search in candidate.search.items():
            yield from _search(f"{place}.search.{name}", search, grid=training.tuning.algorithm == "Grid")
    yield from check_distinct(training.ensemble.methods, f"{field}.ensemble.methods")
    if "Stacking" in training.ensemble.methods and len(training.candidates) < 2:
        place = f"{field}.ensemble.methods[{training.ensemble.methods.index('Stacking')}]"
        yield Problem(place, "Stacking combines candidates, and there is one.", "Declare another, or leave it out.")
    if spec is not None:
        yield from _metrics(field, training, spec)


def check_window(window: TrainingWindow | None) -> Iterator[Problem]:
    """The window of a retraining."""
    if window is None:
        return
    try:
        since = datetime.fromisoformat(window.since)
    except ValueError:
        since = None
    if since is None or since.tzinfo is None:
        cause = f"{window.since!r} is not a time with its zone."
        yield Problem("spec.window.since", cause, "Write RFC 3339, such as 2026-05-04T10:00:00Z.")


def _candidate(field: str, candidate: Candidate, target: Target | None) -> Iterator[Problem]:
    tested = ESTIMATORS[candidate.estimator]
    if target is not None and target.type not in tested.targets:
        fitting = listed([name for name, other in ESTIMATORS.items() if target.type in other.targets])
        cause = f"{candidate.estimator} was not tested for a {target.type} target."
        yield Problem(f"{field}.estimator", cause, f"Use {fitting}.")
    for group, names in (("parameters", candidate.parameters), ("search", candidate.search)):
        for name in names:
            if name not in tested.parameters:
                cause = f"{candidate.estimator} was not tested with parameter {name}."
                yield Problem(f"{field}.{group}.{name}", cause, nearest(name, tested.parameters))
    for name, value in candidate.parameters.items():
        yield from _number(f"{field}.parameters.{name}", name, value)


def _number(field: str, name: str, value: ParameterValue) -> Iterator[Problem]:
    if name in SWITCHES:
        if not isinstance(value, bool):
            yield Problem(field, f"{value!r} is neither true nor false.", "Write true or false without quotes.")
    elif isinstance(value, bool) or (isinstance(value, str) and name not in TEXT_PARAMETERS):
        yield Problem(field, f"{value!r} is not a number.", "Write a number without quotes.")


def _search(field: str, search: SearchRange, *, grid: bool) -> Iterator[Problem]:
    name = field.rpartition(".")[2]
    yield from check_distinct(search.choices, f"{field}.choices")
    for index, choice in enumerate(search.choices):
        yield from _number(f"{field}.choices[{index}]", name, choice)
    if search.minimum is None or search.maximum is None:
        return
    if grid:
        cause = f"Grid cannot try every value between {search.minimum:g} and {search.maximum:g}."
        yield Problem(field, cause, "List choices, or use Random.")
    if search.minimum >= search.maximum:
        yield Problem(f"{field}.minimum", "search minimum must be below its maximum.", "Swap or widen them.")
    if search.scale == "Log" and search.minimum <= 0:
        yield Problem(f"{field}.minimum", f"{search.minimum:g} has no logarithm.", "Start above 0, or use Linear.")
    if search.type == "Integer":
        for end, value in (("minimum", search.minimum), ("maximum", search.maximum)):
            if value != int(value):
                yield Problem(f"{field}.{end}", f"{value:g} is not whole.", "Use type Float.")


def _metrics(field: str, training: TrainingTemplate, spec: DrivetrainProjectSpec) -> Iterator[Problem]:
    kind = spec.data.target.type
    offered = metrics_of(kind)
    named = [(f"{field}.tuning.metric", training.tuning.metric)] if training.tuning.metric else []
    for index, gate in enumerate(training.evaluation.gates):
        place = f"{field}.evaluation.gates[{index}]"
        named.append((f"{place}.metric", gate.metric))
        if gate.slice is not None and gate.slice not in spec.data.slices:
            yield Problem(
                f"{place}.slice", f"{gate.slice} is not in data.slices.", nearest(gate.slice, spec.data.slices)
            )
        if gate.margin and gate.versus is None:
            yield Problem(f"{place}.margin", "A margin belongs to versus.", "Move it into the threshold.")
    for place, metric in named:
        if metric not in offered:
            yield Problem(place, f"A {kind} target has no {metric}.", f"Use one of {', '.join(offered)}.")
