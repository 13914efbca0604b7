"""The levers, and the project levers that are not supported yet."""

from collections.abc import Iterator
from decimal import Decimal

from drivetrain.api.errors import Problem
from drivetrain.api.scalars import format_decimal
from drivetrain.api.v1alpha1.dataset import Column
from drivetrain.api.v1alpha1.lever import Lever
from drivetrain.api.v1alpha1.project import DrivetrainProjectSpec
from drivetrain.api.validation.names import check_distinct, check_unique, check_word, nearest

MAX_VALUES = 10_000
"""Most values of one lever: the grid of all levers is thinned, one lever's values are listed."""
_TYPES = {"Continuous": ("Float",), "Integer": ("Integer", "Float"), "Categorical": ("String",)}


def check_levers(spec: DrivetrainProjectSpec) -> Iterator[Problem]:
    """Everything below `spec.levers` and `spec.decisions`."""
    yield from check_unique(spec.levers, "spec.levers")
    for index, lever in enumerate(spec.levers):
        field = f"spec.levers[{index}]"
        yield from check_word(lever.name, f"{field}.name")
        yield from _column(field, lever, spec)
        if lever.type == "Categorical":
            yield from check_distinct(lever.choices, f"{field}.choices")
            if lever.effect != "Unknown":
                cause = "a Categorical lever has no direction: effect must be Unknown."
                yield Problem(f"{field}.effect", cause, "Remove effect.")
        else:
            yield from _steps(field, lever)
        if lever.effect != "Unknown" and spec.data.target.type == "Multiclass":
            cause = f"{spec.data.target.name} is Multiclass, and an effect is a direction of one number."
            yield Problem(f"{field}.effect", cause, "Remove effect.")


def _column(field: str, lever: Lever, spec: DrivetrainProjectSpec) -> Iterator[Problem]:
    column = spec.data.column(lever.name)
    if column is None:
        levers = [found.name for found in spec.data.with_role("Lever")]
        remedy = f"Declare it in data.columns with role Lever. {nearest(lever.name, levers)}"
        yield Problem(f"{field}.name", f"Lever {lever.name} is not in data.columns.", remedy)
        return
    if column.role != "Lever":
        yield Problem(f"{field}.name", f"Column {lever.name} has role {column.role}.", "Give it role Lever.")
    if column.type not in _TYPES[lever.type]:
        wanted = " or ".join(_TYPES[lever.type])
        cause = f"A {lever.type} lever cannot set a column of type {column.type}."
        yield Problem(f"{field}.type", cause, f"Declare the column as {wanted}.")
    yield from _inside(field, lever, column)


def _inside(field: str, lever: Lever, column: Column) -> Iterator[Problem]:
    if lever.minimum is not None and column.minimum is not None and float(lever.minimum) < column.minimum:
        cause = f"{lever.minimum} lies below the column's minimum {column.minimum:g}."
        yield Problem(f"{field}.minimum", cause, "Widen the column's bounds or narrow the lever's.")
    if lever.maximum is not None and column.maximum is not None and float(lever.maximum) > column.maximum:
        cause = f"{lever.maximum} lies above the column's maximum {column.maximum:g}."
        yield Problem(f"{field}.maximum", cause, "Widen the column's bounds or narrow the lever's.")


def _steps(field: str, lever: Lever) -> Iterator[Problem]:
    if lever.minimum is None or lever.maximum is None or lever.step is None:
        return
    if lever.minimum > lever.maximum:
        cause = f"lever minimum must not be above its maximum: {lever.minimum} > {lever.maximum}."
        yield Problem(f"{field}.minimum", cause, "Swap them.")
        return
    if lever.step <= 0:
        yield Problem(f"{field}.step", "lever step must be above 0.", "Write the distance between two values.")
        return
    if lever.type == "Integer":
        for name, value in (("minimum", lever.minimum), ("maximum", lever.maximum), ("step", lever.step)):
            if value != value.to_integral_value():
                yield Problem(f"{field}.{name}", f"{value} is not whole, and the lever is Integer.", "Use Continuous.")
                return
    span = lever.maximum - lever.minimum
    if span % lever.step:
        below = lever.minimum + span // lever.step * lever.step
        nearby = " or ".join(format_decimal(value) for value in (below, below + lever.step))
        cause = f"Steps of {lever.step} from {lever.minimum} do not end at {lever.maximum}."
        yield Problem(f"{field}.step", cause, f"Write maximum {nearby}, or another step.")
    elif span / lever.step >= Decimal(MAX_VALUES):
        cause = f"{lever.name} has {span / lever.step + 1:f} values; {MAX_VALUES} is the limit."
        yield Problem(f"{field}.step", cause, "Use a larger step.")
