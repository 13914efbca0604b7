"""From sources to one table: rows appended, columns joined by key, everything as contracted."""

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from drivetrain.api.errors import SourceError
from drivetrain.api.v1alpha1.dataset import Column, Dataset, Source
from drivetrain.pipelines.contract import (
    TYPES,
    check_bounds,
    check_present,
    contracted,
    missing,
    typed,
    typed_target,
    within,
)
from drivetrain.pipelines.rows import DECIDED_AT, EXPLORED, FALLBACK, PROPENSITY, SOURCE

OWN = (PROPENSITY, EXPLORED, DECIDED_AT, FALLBACK, SOURCE)
"""The @ columns of a data version."""
_OPTIONAL_IN_LOG = ("Uncontrolled", "Identifier", "AfterAction", "Assignment")
"""Roles that no request needs to carry; a logged decision may lack them."""


@dataclass(frozen=True, slots=True)
class Collected:
    """The table of one data version. `left_out` counts logged decisions that lack a required column or break bounds."""

    frame: pl.DataFrame
    rows_by_source: Mapping[str, int]
    left_out: int


def assemble(data: Dataset, tables: Mapping[str, pl.DataFrame]) -> Collected:
    """One table of contracted columns from `tables`, which holds every source's rows by the source's name.

    Raises SourceError: ColumnMissing, SourceFormat, BoundsBroken, JoinKeyRepeated.
    """
    columns = contracted(data)
    base = [source for source in data.sources if source.join_on is None]
    joins = [source for source in data.sources if source.join_on is not None]
    later = {name for source in joins for name in tables[source.name].columns}
    parts = [_own(tables[source.name], source, data, columns, later) for source in base if tables[source.name].width]
    if not parts:
        raise SourceError("SourceEmpty", "No source has rows yet.", remedy="Add a source with history, or wait.")
    frame = pl.concat(parts, how="diagonal")
    for source in joins:
        frame = _joined(frame, tables[source.name], source, columns)
    frame = _complete(frame, columns)
    order = [column.name for column in columns]
    return Collected(
        frame=frame.select(*order, data.target.name, *OWN),
        rows_by_source={source.name: tables[source.name].height for source in data.sources},
        left_out=sum(tables[source.name].height for source in base) - frame.height,
    )


def conform(frame: pl.DataFrame, data: Dataset) -> pl.DataFrame:
    """A version's rows under today's contract, which may have changed since. Raises SourceError."""
    columns = [*contracted(data)]
    values = []
    for column in columns:
        if column.name not in frame.columns:
            raise missing(column.name, "the data version")
        values.append(typed(frame[column.name], column.type, source="(data version)"))
        check_bounds(values[-1], column, source="(data version)")
    if data.target.name not in frame.columns:
        raise missing(data.target.name, "the data version")
    values.append(typed_target(frame[data.target.name], data.target, source="(data version)"))
    return pl.DataFrame(values).with_columns(frame[name] for name in OWN)


def _own(
    table: pl.DataFrame, source: Source, data: Dataset, columns: tuple[Column, ...], later: set[str]
) -> pl.DataFrame:
    """A source's rows in contracted types, with the @ columns."""
    logged = source.format == "DecisionLog"
    values = []
    kept = pl.repeat(True, table.height, eager=True)
    for column in columns:
        if column.name in table.columns:
            values.append(typed(table[column.name], column.type, source=source.name))
            if logged:
                # Requests outside the bounds are answered by the fallback and logged; no model trains on them.
                kept = kept & within(values[-1], column)
            else:
                check_bounds(values[-1], column, source=source.name)
        elif not (column.nullable or column.name in later or column.role == "Assignment" or logged):
            raise missing(column.name, f"source {source.name}")
    if data.target.name not in table.columns:
        raise missing(data.target.name, f"source {source.name}")
    values.append(typed_target(table[data.target.name], data.target, source=source.name))
    for key in {source.join_on for source in data.sources if source.join_on is not None}:
        if key in table.columns and data.column(key) is None:
            values.append(typed(table[key], "String", source=source.name))
    frame = pl.DataFrame(values)
    check_present(
        frame.with_columns(pl.lit(source.name).alias(SOURCE)),
        data.target.name,
        pl.repeat(True, frame.height, eager=True),
    )
    if logged:
        return frame.with_columns(
            table[PROPENSITY].cast(pl.Float64),
            table[EXPLORED].cast(pl.Boolean),
            table[DECIDED_AT].cast(pl.Datetime("us", "UTC")),
            table[FALLBACK].cast(pl.Boolean),
            pl.lit(source.name).alias(SOURCE),
        ).filter(kept)
    return frame.with_columns(
        _assignment(frame, data, source).alias(PROPENSITY),
        pl.lit(None, dtype=pl.Datetime("us", "UTC")).alias(DECIDED_AT),
        pl.lit(value=False).alias(FALLBACK),
        pl.lit(source.name).alias(SOURCE),
    ).with_columns((pl.col(PROPENSITY) < 1).fill_null(value=False).alias(EXPLORED))


def _assignment(frame: pl.DataFrame, data: Dataset, source: Source) -> pl.Series:
    """Logged propensities of a source that declares an Assignment column."""
    for column in data.with_role("Assignment"):
        if column.name in frame.columns:
            values = frame[column.name].cast(pl.Float64)
            impossible = values.filter((values <= 0) | (values > 1))
            if len(impossible):
                raise SourceError(
                    "BoundsBroken",
                    f"Column {column.name} of source {source.name}: {len(impossible)} of {len(values)} rows are no "
                    f"probability, for example {impossible[0]!r}.",
                    remedy="An Assignment column holds the probability of the row's action; leave it empty if unknown.",
                )
            return values
    return pl.repeat(None, frame.height, dtype=pl.Float64, eager=True)


def _joined(frame: pl.DataFrame, table: pl.DataFrame, source: Source, columns: tuple[Column, ...]) -> pl.DataFrame:
    """The rows with the source's columns; where a row brought its own value, that one stays."""
    key = source.join_on
    assert key is not None
    if key not in frame.columns:
        raise missing(key, "every source of rows")
    if key not in table.columns:
        raise missing(key, f"source {source.name}")
    contract = {column.name: column for column in columns}
    kind = contract[key].type if key in contract else "String"
    values = [typed(table[key], kind, source=source.name)]
    for column in columns:
        if column.name in table.columns and column.name != key:
            values.append(typed(table[column.name], column.type, source=source.name))
            check_bounds(values[-1], column, source=source.name)
    keyed = pl.DataFrame(values).filter(pl.col(key).is_not_null())
    repeated = keyed.filter(keyed[key].is_duplicated())
    if repeated.height:
        raise SourceError(
            "JoinKeyRepeated",
            f"Source {source.name}: {repeated.height} rows share their {key} with another, "
            f"for example {repeated[key][0]!r}.",
            remedy="A joined source needs one row a key.",
        )
    joined = frame.join(keyed, on=key, how="left", suffix="@joined", maintain_order="left")
    doubled = [name for name in keyed.columns if f"{name}@joined" in joined.columns]
    return joined.with_columns(pl.coalesce(name, f"{name}@joined").alias(name) for name in doubled).drop(
        f"{name}@joined" for name in doubled
    )


def _complete(frame: pl.DataFrame, columns: tuple[Column, ...]) -> pl.DataFrame:
    """Every contracted column there, and filled where it must be.

    A source that breaks its contract fails the run. The log is ours: a decision made before a column was contracted is
    no breach; it cannot train a model that needs the column, and is left out.
    """
    complete = pl.repeat(True, frame.height, eager=True)
    logged = frame[DECIDED_AT].is_not_null()
    for column in columns:
        if column.name not in frame.columns:
            if not column.nullable and column.role not in _OPTIONAL_IN_LOG:
                raise missing(column.name, "every source")
            frame = frame.with_columns(pl.lit(None, dtype=TYPES[column.type]).alias(column.name))
        if column.nullable or column.role == "Assignment":
            continue
        check_present(frame, column.name, ~logged)
        if column.role not in _OPTIONAL_IN_LOG:
            complete = complete & frame[column.name].is_not_null()
    return frame.filter(complete)
