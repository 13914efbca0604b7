"""What a request must carry, from the contracts of the policies that serve; rows of JSON become typed columns."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from drivetrain.api import expression
from drivetrain.api.errors import DrivetrainError
from drivetrain.api.model import ModelContract
from drivetrain.api.policy import Policy
from drivetrain.api.v1alpha1.dataset import Column as DeclaredColumn
from drivetrain.api.v1alpha1.dataset import ColumnType
from drivetrain.api.v1alpha1.lever import Lever

Objects: TypeAlias = NDArray[np.object_]
Floats: TypeAlias = NDArray[np.float64]
Booleans: TypeAlias = NDArray[np.bool_]
Column: TypeAlias = Floats | Objects

ROW_LIMIT: Final = 1000
TEXT_LIMIT: Final = 1024
PROBLEM_LIMIT: Final = 20
TODAY: Final = "today"

_MISSING: Final = object()
_KINDS: Final[Mapping[ColumnType, tuple[frozenset[type], str]]] = {
    "Integer": (frozenset({int, float}), "a whole number"),
    "Float": (frozenset({int, float}), "a number"),
    "Boolean": (frozenset({bool}), "true or false"),
    "String": (frozenset({str}), "text"),
    "Timestamp": (frozenset({str}), "a time such as 2026-05-04T10:00:00Z"),
}
_REFUSED_ROLES: Final = {
    "Lever": "is a lever; the endpoint sets it. Send today's action under 'today'.",
    "Derived": "is derived; the endpoint computes it.",
    "AfterAction": "is only known after the action; report it to /v1/outcomes.",
    "Assignment": "is logged by the endpoint itself.",
}


@dataclass(frozen=True, slots=True)
class RowProblem:
    """One fault of a request: which row, which field, and why."""

    row: int
    field: str
    cause: str


class RowsError(DrivetrainError):
    """Rows that break the contract; nothing of the call is decided or logged."""

    def __init__(self, problems: Sequence[RowProblem]) -> None:
        first = problems[0]
        super().__init__(f"Row {first.row}, field {first.field}: {first.cause}")
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a request row."""

    name: str
    type: ColumnType
    nullable: bool
    required: bool
    why: str
    """Who needs it, for the documentation page."""


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Validated rows, column by column. Numbers and booleans are float64 with NaN for null, the rest objects with None.

    A column that no row carries is absent. `units` are texts, None where the objective names no unit."""

    count: int
    columns: Mapping[str, Column]
    units: tuple[str, ...] | None
    today: Mapping[str, Column]
    """Lever to [rows] where at least one row sent today's action."""
    sent_today: Booleans
    """[rows]"""
    complete_for_candidate: Booleans
    """Whether the row has every column that the candidate needs, [rows]."""
    ignored: tuple[str, ...] = ()
    """Fields that no policy knows."""


@dataclass(frozen=True, slots=True)
class RequestContract:
    """Fields by name, the levers of `today`, and what only the candidate needs."""

    fields: Mapping[str, Field]
    refused: Mapping[str, str]
    """Known columns that a request must not carry, and why."""
    levers: tuple[Lever, ...]
    unit: str | None
    needs_today: bool
    candidate_only: tuple[str, ...]

    def rows(self, rows: object) -> Rows:
        """Types a batch of JSON rows. Raises RowsError naming rows and fields (at most 20 problems).

        A field that no policy knows is ignored and named in the answer: refusing it would turn the end of a rollout
        into an outage, since callers go on sending the columns that only the rejected candidate knew.
        """
        documents = _documents(rows)
        problems: list[RowProblem] = []
        unknown = set(chain.from_iterable(documents)) - self.fields.keys() - {TODAY}
        for name in sorted(unknown & self.refused.keys()):
            row = next(index for index, document in enumerate(documents) if name in document)
            problems.append(RowProblem(row, name, self.refused[name]))
        columns: dict[str, Column] = {}
        for field in self.fields.values():
            column = _column(field, documents, problems)
            if column is not None:
                columns[field.name] = column
        today, sent = self._today(documents, problems)
        units = None
        if self.unit is not None and not problems:
            units = tuple(_unit(document[self.unit]) for document in documents)
        if problems:
            problems.sort(key=lambda problem: problem.row)
            raise RowsError(problems[:PROBLEM_LIMIT])
        return Rows(
            count=len(documents),
            columns=columns,
            units=units,
            today=today,
            sent_today=sent,
            complete_for_candidate=self._complete(columns, len(documents)),
            ignored=tuple(sorted(unknown)),
        )

    def _complete(self, columns: Mapping[str, Column], count: int) -> Booleans:
        complete = np.ones(count, dtype=bool)
        for name in self.candidate_only:
            if name not in columns:
                return np.zeros(count, dtype=bool)
            if not self.fields[name].nullable:
                complete &= ~missing(columns[name])
        return complete

    def _today(
        self, documents: Sequence[Mapping[str, object]], problems: list[RowProblem]
    ) -> tuple[dict[str, Column], Booleans]:
        sent = np.array([document.get(TODAY) is not None for document in documents], dtype=bool)
        if self.needs_today and not sent.all():
            problems.append(RowProblem(int(np.argmin(sent)), TODAY, "is missing; today's policy is only known by it."))
        if not sent.any() or problems:
            return {}, sent
        names = {lever.name for lever in self.levers}
        actions: list[Mapping[str, object]] = []
        for index in np.flatnonzero(sent).tolist():
            action = documents[index][TODAY]
            if not isinstance(action, dict) or set(action) != names:
                wanted = ", ".join(sorted(names))
                problems.append(RowProblem(index, TODAY, f"must map each lever ({wanted}) to a value."))
                return {}, sent
            actions.append(action)
        return {lever.name: _lever_column(lever, actions, sent, problems) for lever in self.levers}, sent


def contract_of(
    stable: Policy,
    stable_model: ModelContract | None,
    baseline: Policy,
    candidate: Policy | None = None,
    candidate_model: ModelContract | None = None,
) -> RequestContract:
    """Required: what stable (its model, value, constraints), today's policy and the unit need.

    What only the candidate needs stays optional. Other columns of the project that are known when deciding, and slices,
    are logged when sent; what is derived, set or only known later is refused.
    """
    needed = _needed(stable, stable_model) | _baseline_names(baseline)
    unit = stable.objective.unit
    if unit is not None:
        needed.add(unit)
    wanted = _needed(candidate, candidate_model) if candidate is not None else set()
    declared = {column.name: column for column in (*(candidate.columns if candidate else ()), *stable.columns)}
    inputs = {column.name: column for model in (candidate_model, stable_model) if model for column in model.inputs}
    fields = {}
    refused = {}
    for name in dict.fromkeys((*declared, *inputs, *sorted(needed | wanted))):
        column = declared.get(name)
        if column is not None and column.role in _REFUSED_ROLES and name not in needed:
            refused[name] = _REFUSED_ROLES[column.role]
            continue
        model_input = inputs.get(name)
        if model_input is not None and model_input.role == "Lever":
            continue
        if column is None and model_input is None and name != unit:
            continue
        # A model decides whether a null may come where it reads the column; the project's contract decides elsewhere.
        nullable = column.nullable if column is not None else False
        if model_input is not None:
            nullable = model_input.nullable
        fields[name] = Field(
            name=name,
            type=model_input.type if model_input is not None else column.type if column is not None else "String",
            nullable=nullable and name != unit,
            required=name in needed,
            why=_why(name, needed, wanted, unit),
        )
    return RequestContract(
        fields=fields,
        refused=refused,
        levers=stable.levers,
        unit=unit,
        needs_today=bool(baseline.objective.baseline.logged),
        candidate_only=tuple(sorted((wanted - needed) & fields.keys())),
    )


def missing(column: Column) -> Booleans:
    """Which elements are null."""
    if column.dtype == object:
        return np.array([value is None for value in column], dtype=bool)
    return np.isnan(column.astype(np.float64))


def _needed(policy: Policy, model: ModelContract | None) -> set[str]:
    texts = [policy.objective.value]
    texts += [constraint.expression for constraint in policy.objective.constraints if constraint.expression]
    names = set(chain.from_iterable(expression.parse(text).names for text in texts))
    if model is not None:
        names |= {column.name for column in model.inputs if column.role == "Context"}
    return _known_when_deciding(names, policy)


def _baseline_names(policy: Policy) -> set[str]:
    written = (policy.objective.baseline.expression or {}).values()
    return _known_when_deciding(set(chain.from_iterable(expression.parse(text).names for text in written)), policy)


def _known_when_deciding(names: set[str], policy: Policy) -> set[str]:
    """`names` without target and levers, Derived ones replaced by what they are computed from."""
    declared = {column.name: column for column in policy.columns}
    levers = {lever.name for lever in policy.levers}
    result: set[str] = set()
    open_names = [name for name in names if name != policy.target.name and name not in levers]
    while open_names:
        name = open_names.pop()
        column = declared.get(name)
        if column is not None and column.role == "Derived" and column.expression is not None:
            open_names += [
                inner for inner in expression.parse(column.expression).names if inner not in levers and inner != name
            ]
        else:
            result.add(name)
    return result


def _why(name: str, needed: set[str], wanted: set[str], unit: str | None) -> str:
    if name == unit:
        return "the randomisation unit"
    if name in needed:
        return "the serving policy needs it"
    return (
        "the candidate needs it; rows without it stay out of the comparison" if name in wanted else "logged when sent"
    )


def _documents(rows: object) -> list[dict[str, object]]:
    if not isinstance(rows, list) or not rows:
        raise RowsError([RowProblem(0, "rows", "must be a list of at least one row.")])
    if len(rows) > ROW_LIMIT:
        raise RowsError([RowProblem(ROW_LIMIT, "rows", f"has {len(rows)} rows; a call takes at most {ROW_LIMIT}.")])
    for index, row in enumerate(rows):
        if type(row) is not dict:
            raise RowsError([RowProblem(index, "rows", "must be an object of fields.")])
    return rows


def _column(field: Field, documents: Sequence[Mapping[str, object]], problems: list[RowProblem]) -> Column | None:
    name = field.name
    values = [document.get(name, _MISSING) for document in documents]
    kinds = set(map(type, values))
    if object in kinds:  # only the mark of a missing field is a bare object
        if field.required:
            problems.append(RowProblem(values.index(_MISSING), name, f"is missing: {field.why}."))
            return None
        if kinds == {object}:
            return None
        values = [None if value is _MISSING else value for value in values]
        kinds = set(map(type, values))
    allowed, wanted = _KINDS[field.type]
    nulls = type(None) in kinds
    if nulls and not field.nullable and field.required:
        problems.append(RowProblem(values.index(None), name, "is null, and must not be."))
        return None
    if not kinds <= allowed | {type(None)}:
        row = next(index for index, value in enumerate(values) if value is not None and type(value) not in allowed)
        problems.append(RowProblem(row, name, f"is {_shown(values[row])}, and must be {wanted}."))
        return None
    return _typed(field, values, problems)


def _typed(field: Field, values: Sequence[object], problems: list[RowProblem]) -> Column | None:
    if field.type == "String":
        texts = objects(values)
        for row, value in enumerate(values):
            if isinstance(value, str) and len(value) > TEXT_LIMIT:
                problems.append(RowProblem(row, field.name, f"is longer than {TEXT_LIMIT} characters."))
                return None
        return texts
    if field.type == "Timestamp":
        times: list[object] = []
        for row, value in enumerate(values):
            try:
                times.append(None if value is None else _instant(str(value)))
            except ValueError:
                problems.append(
                    RowProblem(row, field.name, f"is {_shown(value)}, and must be {_KINDS['Timestamp'][1]}.")
                )
                return None
        return objects(times)
    numbers = np.array(values, dtype=np.float64)  # None becomes NaN
    if field.type == "Integer":
        broken = ~np.isnan(numbers) & (numbers != np.floor(numbers))
        if broken.any():
            row = int(np.argmax(broken))
            problems.append(RowProblem(row, field.name, f"is {_shown(values[row])}, and must be a whole number."))
            return None
    return numbers


def objects(values: Iterable[object]) -> Objects:
    """An array that holds the values as they are."""
    listed = list(values)
    column: Objects = np.empty(len(listed), dtype=object)
    column[:] = listed
    return column


def _lever_column(
    lever: Lever, actions: Sequence[Mapping[str, object]], sent: Booleans, problems: list[RowProblem]
) -> Column:
    values = [action[lever.name] for action in actions]
    rows = np.flatnonzero(sent)
    text = lever.type == "Categorical"
    for row, value in zip(rows.tolist(), values, strict=True):
        if type(value) not in ((str,) if text else (int, float)):
            wanted = "text" if text else "a number"
            problems.append(RowProblem(row, f"{TODAY}.{lever.name}", f"is {_shown(value)}, and must be {wanted}."))
            return objects([])
    if text:
        column: Column = np.empty(len(sent), dtype=object)
        column[rows] = objects(values)
        return column
    numbers = np.full(len(sent), np.nan)
    numbers[rows] = np.array(values, dtype=np.float64)
    return numbers


def _unit(value: object) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _instant(text: str) -> datetime:
    instant = datetime.fromisoformat(text)
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def declared_bounds(columns: Iterable[DeclaredColumn]) -> dict[str, tuple[float | None, float | None]]:
    """Column to its declared bounds, where it has any."""
    return {
        column.name: (column.minimum, column.maximum)
        for column in columns
        if column.minimum is not None or column.maximum is not None
    }
