"""The data contract."""

from collections.abc import Iterator

from drivetrain.api.errors import Problem
from drivetrain.api.v1alpha1.dataset import Column, Dataset
from drivetrain.api.validation.names import check_distinct, check_unique, check_word, listed, nearest
from drivetrain.api.validation.scope import Scope

_FIELD = "spec.data"
_TARGET_TYPES = {
    "Binary": ("Boolean", "Integer"),
    "Multiclass": ("String",),
    "Regression": ("Float", "Integer"),
}


def check_dataset(data: Dataset, scope: Scope) -> Iterator[Problem]:
    """Everything below `spec.data`."""
    yield from _sources(data)
    yield from check_unique(data.columns, f"{_FIELD}.columns")
    derived: set[str] = set()
    for index, column in enumerate(data.columns):
        yield from _column(f"{_FIELD}.columns[{index}]", column, scope, derived)
        if column.role == "Derived":
            derived.add(column.name)
    if len(data.with_role("Assignment")) > 1:
        yield Problem(f"{_FIELD}.columns", "Two columns have role Assignment.", "A row has one propensity.")
    yield from _target(data)
    yield from _split(data)
    yield from check_distinct(data.slices, f"{_FIELD}.slices")
    for index, name in enumerate(data.slices):
        yield from _declared(f"{_FIELD}.slices[{index}]", name, data)
    yield from check_unique(data.to_collect, f"{_FIELD}.toCollect")
    for index, wanted in enumerate(data.to_collect):
        yield from check_word(wanted.name, f"{_FIELD}.toCollect[{index}].name")
        if data.column(wanted.name) is not None:
            cause = f"{wanted.name} is in columns, so it is there already."
            yield Problem(f"{_FIELD}.toCollect[{index}].name", cause, "Remove it from one of the two.")


def _sources(data: Dataset) -> Iterator[Problem]:
    yield from check_unique(data.sources, f"{_FIELD}.sources")
    logs = 0
    for index, source in enumerate(data.sources):
        field = f"{_FIELD}.sources[{index}]"
        logs += source.format == "DecisionLog"
        if source.format == "DecisionLog" and logs > 1:
            yield Problem(f"{field}.format", "The project has one decision log.", "Remove this source.")
        if source.join_on is None:
            continue
        if source.format == "DecisionLog":
            yield Problem(f"{field}.joinOn", "The decision log brings rows, not columns.", "Remove joinOn.")
        yield from _declared(f"{field}.joinOn", source.join_on, data)
        column = data.column(source.join_on)
        if column is not None and column.role in ("Derived", "AfterAction", "Assignment"):
            cause = f"{column.name} has role {column.role} and cannot be a key."
            yield Problem(f"{field}.joinOn", cause, "Join on an Identifier or Context column.")
    if all(source.join_on is not None for source in data.sources):
        yield Problem(f"{_FIELD}.sources", "All sources are joined to others.", "Leave joinOn out of one.")


def _column(field: str, column: Column, scope: Scope, derived: set[str]) -> Iterator[Problem]:
    yield from check_word(column.name, f"{field}.name")
    if column.minimum is not None and column.maximum is not None and column.minimum > column.maximum:
        yield Problem(f"{field}.minimum", "column minimum must not be above its maximum.", "Swap them.")
    for name, bound in (("minimum", column.minimum), ("maximum", column.maximum)):
        if bound is not None and column.type not in ("Integer", "Float"):
            yield Problem(f"{field}.{name}", f"A {column.type} column has no {name}.", "Remove it.")
    if column.type == "Timestamp" and column.role in ("Context", "Lever", "Derived"):
        cause = f"A time cannot be a model input ({column.role}): it only ever grows."
        yield Problem(f"{field}.type", cause, "Declare it Uncontrolled, and import hour or weekday as numbers.")
    if column.role == "Assignment" and column.type != "Float":
        yield Problem(f"{field}.type", "A propensity is a Float.", "Declare it as Float.")
    if column.role == "Lever" and column.name not in scope.levers:
        cause = f"{column.name} has role Lever and is not in spec.levers."
        yield Problem(f"{field}.role", cause, "Declare the lever, or give the column role Context or Uncontrolled.")
    if column.role == "Derived" and column.expression is not None:
        yield from _expression(field, column, column.expression, scope, derived)


def _expression(field: str, column: Column, text: str, scope: Scope, derived: set[str]) -> Iterator[Problem]:
    if column.type == "String":
        yield Problem(f"{field}.type", "An expression yields a number.", "Use Float, Integer or Boolean.")
    place = f"{field}.expression"
    expression, _ = scope.parsed(place, text)
    late = sorted((expression.names if expression else frozenset()) & scope.with_role("Derived") - derived)
    for name in late:
        cause = f"{name} is not computed before {column.name}." if name != column.name else f"{name} names itself."
        yield Problem(place, cause, "Derived columns read Derived columns above them.")
    if not late:
        yield from scope.problems(
            place, text, scope.with_role("Context", "Lever") | derived, boolean=column.type == "Boolean"
        )


def _target(data: Dataset) -> Iterator[Problem]:
    target, field = data.target, f"{_FIELD}.target"
    yield from check_word(target.name, f"{field}.name")
    yield from check_distinct(target.classes, f"{field}.classes")
    column = data.column(target.name)
    if column is not None and column.role != "AfterAction":
        cause = f"{target.name} is the target and has role {column.role}: as a model input it would leak the outcome."
        yield Problem(f"{field}.name", cause, "Give the column role AfterAction.")
    if column is not None and column.type not in _TARGET_TYPES[target.type]:
        wanted = listed(_TARGET_TYPES[target.type])
        yield Problem(f"{field}.type", f"A {target.type} target is no {column.type} column.", f"It takes {wanted}.")
    for name, bound in (("minimum", target.minimum), ("maximum", target.maximum)):
        if bound is not None and target.type != "Regression":
            yield Problem(f"{field}.{name}", f"A {target.type} target has no {name}.", "Remove it.")
    if target.minimum is not None and target.maximum is not None and target.minimum >= target.maximum:
        yield Problem(f"{field}.minimum", "The minimum is not below the maximum.", "Swap or widen them.")


def _split(data: Dataset) -> Iterator[Problem]:
    split, field = data.split, f"{_FIELD}.split.column"
    if split.column is None:
        return
    yield from _declared(field, split.column, data)
    column = data.column(split.column)
    if column is None:
        return
    if column.role == "Derived":
        yield Problem(field, f"{column.name} is Derived, and sources do not bring it.", "Use a column of a source.")
    if split.strategy == "Time" and column.type in ("String", "Boolean"):
        yield Problem(
            field, f"{column.name} is a {column.type}, not a time.", "Use a Timestamp or a number that grows."
        )


def _declared(field: str, name: str, data: Dataset) -> Iterator[Problem]:
    if data.column(name) is None:
        known = [column.name for column in data.columns]
        yield Problem(field, f"{name} is not in data.columns.", nearest(name, known))
