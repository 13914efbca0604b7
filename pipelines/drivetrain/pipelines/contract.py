"""The contract of columns, held against data: types, bounds, missing values. A breach names count and example."""

from typing import Final

import polars as pl

from drivetrain.api.errors import SourceError
from drivetrain.api.v1alpha1.dataset import Column, ColumnType, Dataset, Target
from drivetrain.pipelines.rows import SOURCE

TYPES: Final[dict[ColumnType, pl.DataType]] = {
    "Integer": pl.Int64(),
    "Float": pl.Float64(),
    "Boolean": pl.Boolean(),
    "String": pl.String(),
    "Timestamp": pl.Datetime("us", "UTC"),
}
_TARGET_TYPES: Final[dict[str, ColumnType]] = {"Binary": "Boolean", "Multiclass": "String", "Regression": "Float"}
_TRUTH: Final = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False}


def contracted(data: Dataset) -> tuple[Column, ...]:
    """The columns that sources must bring: all but the Derived ones and the target."""
    return tuple(column for column in data.columns if column.role != "Derived" and column.name != data.target.name)


def typed(values: pl.Series, kind: ColumnType, *, source: str) -> pl.Series:
    """The values in the contract's type; NaN is missing. Raises SourceError, reason SourceFormat."""
    parsed = _parsed(values, kind)
    unfit = values.filter(parsed.is_null() & _present(values))
    if len(unfit):
        raise SourceError(
            "SourceFormat",
            f"Column {values.name} of source {source}: {len(unfit)} of {len(values)} values are no {kind}, "
            f"for example {unfit[0]!r}.",
            remedy="Correct the values, or the type in data.columns.",
        )
    return parsed.rename(values.name)


def typed_target(values: pl.Series, target: Target, *, source: str) -> pl.Series:
    """The target as Int8 0/1, String or Float64. Raises SourceError, reason SourceFormat or BoundsBroken."""
    parsed = typed(values, _TARGET_TYPES[target.type], source=source)
    if target.type == "Multiclass":
        _refuse(parsed.is_in(target.classes), parsed, f"are none of {', '.join(target.classes)}", source)
    _check_bounds(parsed, target.minimum, target.maximum, source)
    return parsed.cast(pl.Int8) if target.type == "Binary" else parsed


def check_bounds(values: pl.Series, column: Column, *, source: str) -> None:
    """Raises SourceError, reason BoundsBroken, when a value lies outside the column's bounds."""
    _check_bounds(values, column.minimum, column.maximum, source)


def within(values: pl.Series, column: Column) -> pl.Series:
    """[rows] mask: the value lies within the column's bounds, or is missing."""
    kept = values.is_not_null() | values.is_null()
    if column.minimum is not None:
        kept = kept & (values >= column.minimum).fill_null(value=True)
    if column.maximum is not None:
        kept = kept & (values <= column.maximum).fill_null(value=True)
    return kept


def check_present(frame: pl.DataFrame, name: str, required: pl.Series) -> None:
    """Raises SourceError, reason BoundsBroken, when a `required` row (a mask) has no value in column `name`."""
    missing = frame.filter(frame[name].is_null() & required)
    if missing.height:
        raise SourceError(
            "BoundsBroken",
            f"Column {name} is missing in {missing.height} of {frame.height} rows, "
            f"the first of them from source {missing[SOURCE][0]}.",
            remedy="Fill it, or declare nullable: true in data.columns.",
        )


def missing(column: str, where: str) -> SourceError:
    """The error of a column that is not there."""
    return SourceError(
        "ColumnMissing",
        f"Column {column} is missing in {where}.",
        remedy="Add it to the source, correct its name in data.columns, or declare it nullable.",
    )


def _check_bounds(values: pl.Series, minimum: float | None, maximum: float | None, source: str) -> None:
    if minimum is not None:
        _refuse(values >= minimum, values, f"lie below the minimum {minimum:g}", source)
    if maximum is not None:
        _refuse(values <= maximum, values, f"lie above the maximum {maximum:g}", source)


def _refuse(kept: pl.Series, values: pl.Series, fault: str, source: str) -> None:
    broken = values.filter(~kept & values.is_not_null())
    if len(broken):
        raise SourceError(
            "BoundsBroken",
            f"Column {values.name} of source {source}: {len(broken)} of {len(values)} rows {fault}, "
            f"for example {broken[0]!r}.",
            remedy="Correct the rows, or the bounds in data.columns.",
        )


def _present(values: pl.Series) -> pl.Series:
    present = values.is_not_null()
    return present & ~values.is_nan() if values.dtype.is_float() else present


def _parsed(values: pl.Series, kind: ColumnType) -> pl.Series:
    """The values in the type, null where they do not fit."""
    if values.dtype == pl.Null:
        return values.cast(TYPES[kind])
    if values.dtype in (pl.Categorical, pl.Enum):
        values = values.cast(pl.String)
    text = values.dtype == pl.String
    match kind:
        case "Integer":
            exact = values.cast(pl.Int64, strict=False) if not values.dtype.is_float() else None
            number = values.cast(pl.Float64, strict=False)
            whole = number.is_finite() & (number == number.round()) & (number.abs() < 2**53)
            rounded = number.set(~whole.fill_null(value=False), None).cast(pl.Int64)
            return rounded if exact is None else exact.zip_with(exact.is_not_null(), rounded)
        case "Float":
            number = values.cast(pl.Float64, strict=False)
            return number.set(~number.is_finite().fill_null(value=True), None)
        case "Boolean":
            if values.dtype == pl.Boolean:
                return values
            if values.dtype.is_temporal() or values.dtype.is_nested():
                return pl.Series([None] * len(values), dtype=pl.Boolean)
            return (
                values.cast(pl.String).str.to_lowercase().replace_strict(_TRUTH, default=None, return_dtype=pl.Boolean)
            )
        case "String":
            if values.dtype.is_nested() or values.dtype == pl.Binary:
                return pl.Series([None] * len(values), dtype=pl.String)
            return values.fill_nan(None).cast(pl.String) if values.dtype.is_float() else values.cast(pl.String)
        case "Timestamp":
            if text:
                return values.str.to_datetime(time_unit="us", time_zone="UTC", strict=False)
            if not values.dtype.is_temporal() or values.dtype in (pl.Time, pl.Duration):
                return pl.Series([None] * len(values), dtype=TYPES[kind])
            moment = values.cast(pl.Datetime("us", getattr(values.dtype, "time_zone", None)))
            zoned = getattr(values.dtype, "time_zone", None) is not None
            return moment.dt.convert_time_zone("UTC") if zoned else moment.dt.replace_time_zone("UTC")
