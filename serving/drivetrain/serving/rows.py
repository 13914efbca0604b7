"""Rows of a request: JSON documents become typed columns, or problems that name row and field."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from drivetrain.api.errors import DrivetrainError
from drivetrain.api.v1alpha1.dataset import ColumnType
from drivetrain.api.v1alpha1.lever import Lever
from drivetrain.levers.grid import Booleans, Column

Objects: TypeAlias = NDArray[np.object_]

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


def documents_of(rows: object) -> list[dict[str, object]]:
    """The rows of a call. Raises RowsError."""
    if not isinstance(rows, list) or not rows:
        raise RowsError([RowProblem(0, "rows", "must be a list of at least one row.")])
    if len(rows) > ROW_LIMIT:
        raise RowsError([RowProblem(ROW_LIMIT, "rows", f"has {len(rows)} rows; a call takes at most {ROW_LIMIT}.")])
    for index, row in enumerate(rows):
        if type(row) is not dict:
            raise RowsError([RowProblem(index, "rows", "must be an object of fields.")])
    return rows


def typed_column(field: Field, documents: Sequence[Mapping[str, object]], problems: list[RowProblem]) -> Column | None:
    """One field of all rows, None when no row carries it; what is wrong with it is added to `problems`."""
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
            except (ValueError, OverflowError):  # the latter: within hours of the first or the last year
                problems.append(
                    RowProblem(row, field.name, f"is {_shown(value)}, and must be {_KINDS['Timestamp'][1]}.")
                )
                return None
        return objects(times)
    numbers = np.array(values, dtype=np.float64)  # None becomes NaN
    if field.type == "Integer":
        broken = ~np.isnan(numbers) & ((numbers != np.floor(numbers)) | (numbers < -(2.0**63)) | (numbers >= 2.0**63))
        if broken.any():
            row = int(np.argmax(broken))
            cause = f"is {_shown(values[row])}, and must be a whole number of 64 bits."
            problems.append(RowProblem(row, field.name, cause))
            return None
    return numbers


def objects(values: Iterable[object]) -> Objects:
    """An array that holds the values as they are."""
    listed = list(values)
    column: Objects = np.empty(len(listed), dtype=object)
    column[:] = listed
    return column


def lever_column(
    lever: Lever, actions: Sequence[Mapping[str, object]], sent: Booleans, problems: list[RowProblem]
) -> Column:
    """A lever's setting in today's actions, null in rows that sent none; what is wrong is added to `problems`."""
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


def unit_of(value: object) -> str:
    """The text that names a randomisation unit: 7 and 7.0 are one."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _instant(text: str) -> datetime:
    instant = datetime.fromisoformat(text)
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def missing(column: Column) -> Booleans:
    """Which elements are null."""
    if column.dtype == object:
        return np.array([value is None for value in column], dtype=bool)
    return np.isnan(column.astype(np.float64))
