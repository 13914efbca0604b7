"""The decision log's rows: from a decided batch to a journal frame, and from frames to Parquet.

A frame is JSON, column by column, because it is written before every answer; Parquet is made later, off the hot path.
The first frame of a segment is a header with the types, so that a segment can be encoded by whoever finds it. Encoding
is deterministic: the same segment gives the same bytes.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from typing import Any, Final

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from drivetrain.api import decision_log as log
from drivetrain.api import layout
from drivetrain.levers.grid import Column
from drivetrain.serving.decisions import Decisions, Distributions
from drivetrain.serving.journal import Upload
from drivetrain.serving.view import Serving

_LOG: Final = logging.getLogger(__name__)
_NUMPY: Final = orjson.OPT_SERIALIZE_NUMPY
_INSTANT: Final = pa.timestamp("us", tz="UTC")
_ATOMS: Final = pa.list_(pa.struct([("action", pa.int32()), ("probability", pa.float64())]))
_TYPES: Final = {
    "Integer": pa.int64(),
    "Float": pa.float64(),
    "Boolean": pa.bool_(),
    "String": pa.string(),
    "Timestamp": _INSTANT,
}


@dataclass(frozen=True, slots=True)
class FrameColumns:
    """What a replica fixes per configuration, so that frames need not repeat it."""

    header: bytes
    objective: str


def header(serving: Serving) -> FrameColumns:
    """The header frame of a configuration."""
    classes = len(serving.stable.policy.target.classes)
    document = {
        "fields": {name: given.type for name, given in sorted(serving.contract.fields.items())},
        "levers": {lever.name: lever.type == "Categorical" for lever in serving.stable.policy.levers},
        "classes": classes,
    }
    return FrameColumns(orjson.dumps({"header": document}), serving.objective)


def frame(decisions: Decisions, ids: Sequence[str], at: datetime, objective: str) -> bytes:
    """One decided batch as a journal frame."""
    serving, rows = decisions.serving, decisions.rows
    own_units = rows.units is not None
    document: dict[str, object] = {
        "at": round(at.timestamp() * 1e6),
        "rollout": serving.config.rollout if serving.candidate is not None else None,
        "weight": serving.weight,
        "objective": objective,
        "id": ids,
        "unit": decisions.units if own_units else None,
        "arm": decisions.arms,
        "policy": decisions.policies,
        "propensity": decisions.propensity,
        "explored": decisions.explored,
        "fallback": decisions.fallback,
        "expected": decisions.expected_value,
        "predictions": [decisions.prediction_stable, decisions.prediction_candidate],
        "means": [
            decisions.m_stable,
            decisions.m_candidate,
            decisions.m_holdout,
            decisions.target_m_stable,
            decisions.target_m_candidate,
        ],
        "kind": decisions.context_of_row,
        "distributions": [_atoms(decisions.distribution_stable), _atoms(decisions.distribution_candidate)],
        "context": {name: _plain(column) for name, column in rows.columns.items()},
        "action": {name: _plain(column) for name, column in decisions.actions.items()},
        "today": {name: _plain(column) for name, column in decisions.today.items()},
    }
    return orjson.dumps(document, option=_NUMPY)


def encode_segment(frames: list[bytes], writer: str, sequence: int) -> list[Upload]:
    """The objects of one segment: its decisions as Parquet, none for a segment without any.

    A segment that cannot be encoded must not keep later ones from the store: its frames are put aside as they are.
    """
    try:
        return _encoded(frames, writer, sequence)
    except Exception:
        key = f"{layout.UNREADABLE}/{writer}-{sequence:012d}.jsonl"
        _LOG.exception("A segment of the decision log cannot be encoded; its frames are kept as %s.", key)
        return [Upload(key, b"\n".join(frames))]


def _encoded(frames: list[bytes], writer: str, sequence: int) -> list[Upload]:
    head: dict[str, Any] | None = None
    batches: list[dict[str, Any]] = []
    for payload in frames:
        document = orjson.loads(payload)
        if "header" in document:
            head = document["header"]
        else:
            batches.append(document)
    if head is None or not batches:
        return []
    first = datetime.fromtimestamp(batches[0]["at"] / 1e6, UTC)
    table = _table(batches, head)
    return [Upload(f"{layout.DECISIONS}/{object_place(first, writer, sequence)}.parquet", parquet(table))]


def object_place(first: datetime, writer: str, sequence: int) -> str:
    """<date>/<hour>/<writer>-<sequence>: where a segment's objects lie; its hour is that of its first row."""
    return f"{first:%Y-%m-%d}/{first:%H}/{writer}-{sequence:012d}"


def parquet(table: pa.Table) -> bytes:
    """The table as one Parquet file; equal tables give equal bytes."""
    sink = BytesIO()
    pq.write_table(table, sink, compression="zstd", use_dictionary=True)
    return sink.getvalue()


def _table(batches: Sequence[Mapping[str, Any]], head: Mapping[str, Any]) -> pa.Table:
    sizes = [len(batch["id"]) for batch in batches]

    def joined(pick: Callable[[Mapping[str, Any]], Sequence[object] | None]) -> list[object]:
        result: list[object] = []
        for batch, size in zip(batches, sizes, strict=True):
            values = pick(batch)
            result.extend([None] * size if values is None else values)
        return result

    def repeated(name: str) -> list[object]:
        return [batch[name] for batch, size in zip(batches, sizes, strict=True) for _ in range(size)]

    prediction = pa.list_(pa.float64()) if head["classes"] else pa.float64()
    columns: dict[str, pa.Array] = {
        log.DECISION_ID: pa.array(joined(lambda b: b["id"]), pa.string()),
        log.DECIDED_AT: pa.array(repeated("at"), pa.int64()).cast(_INSTANT),
        log.UNIT: pa.array(joined(lambda b: b["unit"] or b["id"]), pa.string()),
        log.ARM: pa.array(joined(lambda b: b["arm"]), pa.string()),
        log.POLICY: pa.array(joined(lambda b: b["policy"]), pa.string()),
        log.ROLLOUT: pa.array(repeated("rollout"), pa.string()),
        log.WEIGHT: pa.array(repeated("weight"), pa.float64()),
        log.OBJECTIVE: pa.array(repeated("objective"), pa.string()),
        log.PROPENSITY: pa.array(joined(lambda b: b["propensity"]), pa.float64()),
        log.EXPLORED: pa.array(joined(lambda b: b["explored"]), pa.bool_()),
        log.FALLBACK: pa.array(joined(lambda b: b["fallback"]), pa.string()),
        log.EXPECTED_VALUE: pa.array(joined(lambda b: b["expected"]), pa.float64()),
        log.PREDICTION_STABLE: pa.array(joined(lambda b: b["predictions"][0]), prediction),
        log.PREDICTION_CANDIDATE: pa.array(joined(lambda b: b["predictions"][1]), prediction),
        log.DISTRIBUTION_STABLE: _distributions(batches, sizes, 0),
        log.DISTRIBUTION_CANDIDATE: _distributions(batches, sizes, 1),
    }
    means = (log.M_STABLE, log.M_CANDIDATE, log.M_HOLDOUT, log.TARGET_M_STABLE, log.TARGET_M_CANDIDATE)
    for index, name in enumerate(means):
        columns[name] = pa.array(joined(lambda b, index=index: b["means"][index]), pa.float64())  # type: ignore[misc]  # mypy cannot infer a lambda with a default
    for name, type_ in head["fields"].items():
        values = joined(lambda b, name=name: b["context"].get(name))  # type: ignore[misc]  # likewise
        columns[log.CONTEXT_PREFIX + name] = _typed(values, type_)
    for name, text in head["levers"].items():
        type_of = pa.string() if text else pa.float64()
        for prefix, part in ((log.ACTION_PREFIX, "action"), (log.TODAY_PREFIX, "today")):
            values = joined(lambda b, name=name, part=part: b[part].get(name))  # type: ignore[misc]  # likewise
            columns[prefix + name] = pa.array(values, type_of)
    return pa.table(columns)


def _typed(values: list[object], type_: str) -> pa.Array:
    if type_ == "Timestamp":
        return pa.array([None if v is None else datetime.fromisoformat(str(v)) for v in values], _INSTANT)
    if type_ == "Boolean":
        return pa.array([None if v is None else bool(v) for v in values], pa.bool_())
    if type_ == "Integer":
        return pa.array([None if v is None else int(float(str(v))) for v in values], pa.int64())
    return pa.array(values, _TYPES[type_])


def _distributions(batches: Sequence[Mapping[str, Any]], sizes: Sequence[int], which: int) -> pa.Array:
    offsets: list[int | None] = [0]
    actions: list[int] = []
    probabilities: list[float] = []
    for batch, size in zip(batches, sizes, strict=True):
        atoms = batch["distributions"][which]
        if atoms is None:
            offsets[-1:] = [None] * size + [len(actions)]
            continue
        ends = np.cumsum([0, *atoms["n"]]).tolist()
        for kind in batch["kind"]:
            actions += atoms["a"][ends[kind] : ends[kind + 1]]
            probabilities += atoms["p"][ends[kind] : ends[kind + 1]]
            offsets.append(len(actions))
    values = pa.StructArray.from_arrays(
        [pa.array(actions, pa.int32()), pa.array(probabilities, pa.float64())], fields=list(_ATOMS.value_type)
    )
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)


def _atoms(distributions: Distributions | None) -> dict[str, object] | None:
    if distributions is None:
        return None
    return {"n": distributions.counts, "a": distributions.actions, "p": distributions.probabilities}


def _plain(column: Column) -> object:
    return column.tolist() if column.dtype == object else np.ascontiguousarray(column)
