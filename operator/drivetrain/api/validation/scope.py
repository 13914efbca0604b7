"""What an expression of a project may name: by purpose, with the reason why not."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Self

from drivetrain.api.errors import ExpressionError, Problem
from drivetrain.api.expression import BOOLEAN, NUMBER, ColumnType, Expression, bounds, check, parse, text_of
from drivetrain.api.interval import Interval
from drivetrain.api.reach import intervals
from drivetrain.api.v1alpha1.dataset import Column, Target
from drivetrain.api.v1alpha1.project import DrivetrainProjectSpec

_BARRED = {
    "AfterAction": (
        "is known only after the action (AfterAction), so using it would leak the outcome",
        "Use what is known when deciding.",
    ),
    "Uncontrolled": (
        "is declared Uncontrolled, so no decision can rest on it",
        "If it is known when deciding, declare it Context.",
    ),
    "Identifier": ("is an Identifier and means nothing beyond its row", "Use a Context column."),
    "Assignment": ("is the logged propensity (Assignment) and no property of the row", "Use a Context column."),
    "Lever": ("is a lever, and this is computed before one is set", "Use a Context column."),
    "Derived": (
        "is Derived and computed inside the model only",
        "Write its expression out.",
    ),
    "Context": ("is not available here", "Use a lever."),
}


@dataclass(frozen=True, slots=True)
class Scope:
    """Types and intervals of all names of a project."""

    columns: Mapping[str, Column]
    levers: frozenset[str]
    target: Target
    types: Mapping[str, ColumnType]
    intervals: Mapping[str, Interval]

    @classmethod
    def of(cls, spec: DrivetrainProjectSpec) -> Self:
        """The scope of a project."""
        types = {column.name: _type(column) for column in spec.data.columns if column.type != "Timestamp"}
        for lever in spec.levers:
            types[lever.name] = text_of(*lever.choices) if lever.type == "Categorical" else NUMBER
        target = spec.data.target
        types[target.name] = text_of(*target.classes) if target.type == "Multiclass" else NUMBER
        return cls(
            columns={column.name: column for column in spec.data.columns},
            levers=frozenset(lever.name for lever in spec.levers),
            target=target,
            types=types,
            intervals=intervals(spec.objective, spec.levers, spec.data.columns, target),
        )

    def with_role(self, *roles: str) -> frozenset[str]:
        """Names of columns of these roles."""
        return frozenset(name for name, column in self.columns.items() if column.role in roles) - {self.target.name}

    def parsed(self, field: str, text: str) -> tuple[Expression | None, tuple[Problem, ...]]:
        """The expression, or why it is none."""
        try:
            return parse(text), ()
        except ExpressionError as error:
            return None, (_problem(field, error),)

    def problems(self, field: str, text: str, allowed: Collection[str], *, boolean: bool = False) -> Iterator[Problem]:
        """Why an expression over the allowed names is not one: syntax, names, kinds, or values that are not finite."""
        expression, problems = self.parsed(field, text)
        yield from problems
        if expression is None:
            return
        usable = {name: self.types[name] for name in allowed if name in self.types}
        barred = [self.barred(field, name) for name in sorted(expression.names - usable.keys()) if self.knows(name)]
        yield from barred
        if barred:
            return
        try:
            check(expression, usable, boolean=boolean)
            bounds(expression, self.intervals)
        except ExpressionError as error:
            yield _problem(field, error)

    def knows(self, name: str) -> bool:
        """Whether the name is a column or the target."""
        return name in self.columns or name == self.target.name

    def barred(self, field: str, name: str) -> Problem:
        """Why a known name may not stand in this field."""
        column = self.columns.get(name)
        if name == self.target.name:
            return Problem(field, f"{name} is the target, which is not known when deciding.", _BARRED["AfterAction"][1])
        if column is not None and column.type == "Timestamp":
            return Problem(field, f"{name} is a Timestamp, which no expression can read.", "Import it as a number.")
        cause, remedy = _BARRED[column.role if column is not None else "AfterAction"]
        return Problem(field, f"{name} {cause}.", remedy)


def _type(column: Column) -> ColumnType:
    return {"Boolean": BOOLEAN, "String": text_of()}.get(column.type, NUMBER)


def _problem(field: str, error: ExpressionError) -> Problem:
    place = "" if "at position" in error.message else f" (at position {error.position})"
    return Problem(field, f"{error.message.removesuffix('.')}{place}.", error.remedy)
