"""Joins decisions with their outcomes once they are old enough: whole cohorts, in decision order, never by arrival."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from drivetrain.api import decision_log as log
from drivetrain.levers.grid import Booleans, Column, Floats
from drivetrain.serving.identity import issued_at
from drivetrain.serving.rows import objects

FIXED: Final = (
    log.DECISION_ID,
    log.DECIDED_AT,
    log.UNIT,
    log.ARM,
    log.POLICY,
    log.ROLLOUT,
    log.WEIGHT,
    log.OBJECTIVE,
    log.EXPLORED,
    log.FALLBACK,
    log.EXPECTED_VALUE,
    log.PREDICTION_STABLE,
    log.PREDICTION_CANDIDATE,
    log.M_STABLE,
    log.M_CANDIDATE,
    log.M_HOLDOUT,
    log.TARGET_M_STABLE,
    log.TARGET_M_CANDIDATE,
)
PREFIXES: Final = (log.CONTEXT_PREFIX, log.ACTION_PREFIX)


@dataclass(frozen=True, slots=True)
class Reported:
    sequence: int
    reported_at: datetime
    kpi: float | None
    values: dict[str, Any]
    """label.<column> and applied.<lever>, without nulls."""


@dataclass(frozen=True, slots=True, eq=False)
class Cohort:
    """Matured decisions in decision order, arrays of [rows]; `reports` hold what was reported in time."""

    table: pa.Table
    reports: tuple[Reported | None, ...]

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def where(self, rows: Booleans) -> "Cohort":
        """Some of the rows."""
        kept = tuple(report for report, keep in zip(self.reports, rows.tolist(), strict=True) if keep)
        return Cohort(self.table.filter(pa.array(rows)), kept)

    def texts(self, name: str) -> Column:
        """A text column as objects, null as None."""
        return objects(self.table.column(name).to_pylist())

    def numbers(self, name: str) -> Floats:
        """A numeric or boolean column as float64, null as NaN."""
        values = self.table.column(name)
        if values.type == pa.null():
            return np.full(len(self), np.nan)
        return np.asarray(values.cast(pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)

    def matrix(self, name: str) -> Floats:
        """Predictions: [rows], or [rows, classes] of a list column."""
        if not pa.types.is_list(self.table.column(name).type):
            return self.numbers(name)
        rows = self.table.column(name).to_pylist()
        width = next((len(row) for row in rows if row is not None), 1)
        return np.array([[np.nan] * width if row is None else row for row in rows], dtype=np.float64)

    def column(self, name: str) -> Column:
        """A column of any type, as expressions read it."""
        if name not in self.table.column_names:
            return np.full(len(self), np.nan)
        type_ = self.table.column(name).type
        text = pa.types.is_string(type_) or pa.types.is_timestamp(type_)
        return self.texts(name) if text else self.numbers(name)

    def labels(self, name: str) -> Column:
        """A column as the names of slices: text as it is, whole numbers without a point, null as 'null'."""
        values = self.column(name)
        if values.dtype == object:
            return objects("null" if value is None else str(value) for value in values.tolist())
        return objects("null" if math.isnan(value) else f"{value:g}" for value in values.tolist())

    @property
    def seconds(self) -> Floats:
        """When each was decided, seconds since 1970."""
        return self.numbers_of_time() / 1e6

    def numbers_of_time(self) -> Floats:
        """When each was decided, microseconds since 1970."""
        values = self.table.column(log.DECIDED_AT).cast(pa.int64())
        return np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.float64)

    def reported(self, name: str) -> list[Any]:
        """label.<column>, applied.<lever> or kpi of each row's report, None where it says nothing."""
        if name == log.KPI:
            return [None if report is None else report.kpi for report in self.reports]
        return [None if report is None else report.values.get(name) for report in self.reports]

    def answered(self, target: str) -> Booleans:
        """Rows with a report of the target or the KPI; an applied action or another label says nothing about them."""
        label = log.LABEL_PREFIX + target
        return np.array(
            [report is not None and (report.kpi is not None or label in report.values) for report in self.reports],
            dtype=bool,
        )


class Maturation:
    """Holds decisions until they are older than `matures_after`, and the reports that came in the meantime.

    A report counts when it was made before its decision matured; of several, the last that names a value wins it. What
    comes later is counted in `late`, and so is a decision that shows up after its cohort was closed; since this process
    began.
    """

    def __init__(self, matures_after: timedelta, watermark: datetime | None = None) -> None:
        self.matures_after = matures_after
        self.watermark = watermark
        self.late = 0
        self._tables: list[pa.Table] = []
        self._reports: dict[str, list[Reported]] = {}
        self._late_reports: list[float] = []

    def add_decisions(self, table: pa.Table) -> None:
        """Adds decisions as logged, any order, each id once."""
        if self.watermark is not None:
            fresh = pc.greater(table.column(log.DECIDED_AT), pa.scalar(self.watermark, _type(table)))
            kept = table.filter(fresh)
            self.late += table.num_rows - kept.num_rows
            table = kept
        if table.num_rows:
            self._tables.append(table)

    def add_outcomes(self, table: pa.Table) -> None:
        """Adds reports of outcomes as logged."""
        names = [name for name in table.column_names if name.startswith((log.LABEL_PREFIX, log.APPLIED_PREFIX))]
        for row in table.to_pylist():
            values = {name: row[name] for name in names if row[name] is not None}
            report = Reported(row[log.SEQUENCE], row[log.REPORTED_AT], row[log.KPI], values)
            decided = issued_at(row[log.DECISION_ID])
            if report.reported_at > decided + self.matures_after:
                self.late += 1
                self._late_reports.append(decided.timestamp())
            else:
                self._reports.setdefault(row[log.DECISION_ID], []).append(report)

    def take_late(self) -> Floats:
        """When the decisions were made whose outcomes came too late since this was last asked, seconds since 1970."""
        taken, self._late_reports = self._late_reports, []
        return np.array(taken, dtype=np.float64)

    @property
    def waiting(self) -> int:
        """Decisions that have not matured."""
        return sum(table.num_rows for table in self._tables)

    def mature(self, watermark: datetime) -> Cohort | None:
        """Closes the cohort of all decisions made up to `watermark`; None when there is none."""
        if self.watermark is not None and watermark <= self.watermark:
            return None
        self.watermark = watermark
        if not self._tables:
            return None
        whole = _joined(self._tables)
        ripe = pc.less_equal(whole.column(log.DECIDED_AT), pa.scalar(watermark, _type(whole)))
        rest = whole.filter(pc.invert(ripe))
        self._tables = [rest] if rest.num_rows else []
        cohort = whole.filter(ripe).sort_by([(log.DECIDED_AT, "ascending"), (log.DECISION_ID, "ascending")])
        ids = cohort.column(log.DECISION_ID).to_pylist()
        times = cohort.column(log.DECIDED_AT).to_pylist()
        reports = tuple(
            self._merged(self._reports.pop(id_, ()), at + self.matures_after)
            for id_, at in zip(ids, times, strict=True)
        )
        return Cohort(cohort, reports) if ids else None

    def forget_reports(self) -> None:
        """Drops reports of decisions that were never seen, once their cohorts are closed, so that none pile up."""
        if self.watermark is None:
            return
        closed = self.watermark - timedelta(seconds=1)  # an id knows milliseconds, its decision microseconds
        self._reports = {id_: reports for id_, reports in self._reports.items() if issued_at(id_) > closed}

    def _merged(self, reports: Sequence[Reported], deadline: datetime) -> Reported | None:
        timely = sorted(
            (report for report in reports if report.reported_at <= deadline),
            key=lambda report: (report.sequence, report.reported_at),
        )
        merged: Reported | None = None
        for report in timely:
            if merged is None:
                merged = report
                continue
            kpi = merged.kpi if report.kpi is None else report.kpi
            merged = replace(report, kpi=kpi, values=merged.values | report.values)
        return merged


def _joined(tables: Sequence[pa.Table]) -> pa.Table:
    """The rows of all; where a column has changed its type, the newest counts, and what is not of it is null."""
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except (pa.ArrowTypeError, pa.ArrowInvalid):
        newest = {field.name: field.type for table in tables for field in table.schema if field.type != pa.null()}
    alike = [
        pa.table({name: _cast(table.column(name), newest.get(name, pa.null())) for name in table.column_names})
        for table in tables
    ]
    return pa.concat_tables(alike, promote_options="permissive")


def _cast(values: pa.ChunkedArray, type_: pa.DataType) -> pa.ChunkedArray | pa.Array:
    try:
        return values.cast(type_)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return pa.nulls(len(values), type_)


def watermark_of(now: datetime, uploaded_until: Sequence[datetime], matures_after: timedelta) -> datetime:
    """Up to when decisions are mature and surely on the store, with every report that was made in time.

    `uploaded_until` are the replicas' own words; two seconds are left for outcomes whose writing has begun.
    """
    return min([now, *uploaded_until]) - matures_after - timedelta(seconds=2)


def instant(microseconds: float) -> datetime:
    """The time that the log writes as a number."""
    return datetime.fromtimestamp(microseconds / 1e6, UTC)


def _type(table: pa.Table) -> pa.DataType:
    return table.schema.field(log.DECIDED_AT).type
