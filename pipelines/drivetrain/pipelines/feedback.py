"""The project's own decision log as training rows: matured decisions joined with their outcomes, propensities included.

1. Decisions younger than the watermark are left out, whatever their outcomes: positives arrive early, and counting in
   order of arrival would count them first (all or none of a cohort).
2. Of several reports of an outcome the latest that names a value counts for it.
3. A matured decision of which neither the target nor the KPI was reported means what kpi.whenMissing says.
4. Where a person overrode the action, the applied one is the action, and its propensity is unknown.
"""

import io
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Final

import polars as pl

from drivetrain.api import decision_log as log
from drivetrain.api.errors import ContractError
from drivetrain.api.layout import DECISIONS, OUTCOMES
from drivetrain.api.v1alpha1.dataset import Dataset, Source
from drivetrain.api.v1alpha1.objective import Objective
from drivetrain.pipelines.rows import DECIDED_AT, EXPLORED, FALLBACK, PROPENSITY
from drivetrain.store import ObjectStore

_PARALLEL_DOWNLOADS = 8
_ESSENTIAL: Final = (log.DECISION_ID, log.DECIDED_AT, log.UNIT, log.PROPENSITY, log.EXPLORED, log.FALLBACK)
_REPORT: Final = (log.DECISION_ID, log.SEQUENCE, log.REPORTED_AT, log.KPI)
_RULES: Final = (log.CONTEXT_PREFIX, log.ACTION_PREFIX)


EMPTY: Final = "0:0 0:0"
"""Fingerprint of a log without decisions and outcomes."""


def fingerprint(store: ObjectStore) -> str:
    """Number and bytes of the log's objects, which are only ever added: changes with every decision and outcome."""
    listed = [list(store.list(f"{prefix}/")) for prefix in (DECISIONS, OUTCOMES)]
    return " ".join(f"{len(infos)}:{sum(info.size for info in infos)}" for infos in listed)


def snapshot(
    store: ObjectStore, source: Source, data: Dataset, objective: Objective, watermark: datetime
) -> pl.DataFrame:
    """Decisions made up to `watermark`, oldest first, with contracted column names and the @ columns of `rows`.

    Columns that the log does not know are left out. No decisions give an empty frame. Raises StoreError, and
    ContractError: OutcomesMissing, when whenMissing is Fail or has no meaning for the target.
    """
    decisions = _table(store, f"{DECISIONS}/", _ESSENTIAL, _RULES)
    if decisions.is_empty():
        return pl.DataFrame()
    decisions = (
        decisions.filter(pl.col(log.DECIDED_AT) <= watermark)
        .sort(log.DECIDED_AT, log.DECISION_ID)
        .unique(log.DECISION_ID, keep="first", maintain_order=True)
    )
    outcomes = _table(store, f"{OUTCOMES}/", _REPORT, (log.LABEL_PREFIX, log.APPLIED_PREFIX))
    joined = _answered(decisions, outcomes)
    return _contracted(_completed(joined, source, data, objective), data, objective)


def _answered(decisions: pl.DataFrame, outcomes: pl.DataFrame) -> pl.DataFrame:
    if outcomes.is_empty():
        return decisions.with_columns(pl.lit(None, dtype=pl.Float64).alias(log.KPI))
    ordered = outcomes.sort(log.DECISION_ID, log.SEQUENCE, log.REPORTED_AT)
    latest = ordered.group_by(log.DECISION_ID).agg(pl.all().drop_nulls().last())
    return decisions.join(latest, on=log.DECISION_ID, how="left", maintain_order="left")


def _completed(frame: pl.DataFrame, source: Source, data: Dataset, objective: Objective) -> pl.DataFrame:
    """One target a row: what was reported, or what its absence means."""
    label = log.LABEL_PREFIX + data.target.name
    if frame.schema.get(label, pl.Null()) == pl.Null:  # nobody has reported a label yet
        frame = frame.with_columns(pl.lit(None, dtype=pl.Float64).alias(label))
    answered = pl.col(label).is_not_null() | pl.col(log.KPI).is_not_null()
    silent = frame.select((~answered).sum()).item()
    when = objective.kpi.when_missing
    if silent and (when == "Fail" or (when == "Zero" and data.target.type == "Multiclass")):
        why = "whenMissing is Fail" if when == "Fail" else "Zero is no class of the target"
        raise ContractError(
            "OutcomesMissing",
            f"{silent} of {frame.height} matured decisions in {source.name} have no outcome, and {why}.",
            remedy="Repair what reports outcomes, or set objective.kpi.whenMissing: Exclude.",
        )
    if when == "Zero":
        kind = frame.schema[label]
        zero = pl.lit("0") if kind == pl.String else pl.lit(value=False) if kind == pl.Boolean else pl.lit(0)
        frame = frame.with_columns(pl.when(answered).then(pl.col(label)).otherwise(zero.cast(kind)).alias(label))
    # A report may bring the KPI alone; then nothing is known about the target.
    return frame.filter(pl.col(label).is_not_null())


def _contracted(frame: pl.DataFrame, data: Dataset, objective: Objective) -> pl.DataFrame:
    levers = [column.name for column in data.with_role("Lever")]
    overridden = pl.lit(value=False)
    wanted: dict[str, pl.Expr] = {}
    for lever in levers:
        action, applied = log.ACTION_PREFIX + lever, log.APPLIED_PREFIX + lever
        if action in frame.columns and applied in frame.columns:
            changed = pl.col(applied).is_not_null() & (pl.col(applied) != pl.col(action)).fill_null(value=True)
            overridden = overridden | changed
            wanted[lever] = pl.coalesce(applied, action)
        elif action in frame.columns:
            wanted[lever] = pl.col(action)
    for column in data.columns:
        prefix = log.LABEL_PREFIX if column.role == "AfterAction" else log.CONTEXT_PREFIX
        if column.role not in ("Lever", "Derived") and prefix + column.name in frame.columns:
            wanted[column.name] = pl.col(prefix + column.name)
    for source in data.sources:
        if source.join_on and log.CONTEXT_PREFIX + source.join_on in frame.columns:
            wanted.setdefault(source.join_on, pl.col(log.CONTEXT_PREFIX + source.join_on))
    if objective.unit is not None and objective.unit not in wanted:
        wanted[objective.unit] = pl.col(log.UNIT)
    wanted[data.target.name] = pl.col(log.LABEL_PREFIX + data.target.name)
    return frame.select(
        *(expression.alias(name) for name, expression in wanted.items()),
        pl.when(~overridden).then(pl.col(log.PROPENSITY)).alias(PROPENSITY),
        (pl.col(log.EXPLORED).fill_null(value=False) & ~overridden).alias(EXPLORED),
        (pl.col(log.FALLBACK).fill_null("") != "").alias(FALLBACK),
        pl.col(log.DECIDED_AT).alias(DECIDED_AT),
    )


def _table(store: ObjectStore, prefix: str, names: Iterable[str], prefixes: tuple[str, ...]) -> pl.DataFrame:
    """The wanted columns of all Parquet objects below `prefix`; a column that some lack is null there."""
    keys = [info.key for info in store.list(prefix) if info.key.endswith(".parquet")]
    always = frozenset(names)

    def part(key: str) -> pl.DataFrame:
        content = io.BytesIO(store.get(key))
        schema = pl.read_parquet_schema(content)
        columns = [name for name in schema if name in always or name.startswith(prefixes)]
        content.seek(0)
        return pl.read_parquet(content, columns=columns, use_statistics=False)

    with ThreadPoolExecutor(_PARALLEL_DOWNLOADS) as pool:
        parts = [frame for frame in pool.map(part, keys) if frame.height]
    return pl.concat(parts, how="diagonal_relaxed") if parts else pl.DataFrame()
