"""Outcomes as callers report them: checked, numbered, and written before they are acknowledged."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import orjson
import pyarrow as pa

from drivetrain.api import decision_log as log
from drivetrain.api import layout
from drivetrain.api.policy import Policy
from drivetrain.api.v1alpha1.dataset import Column as DeclaredColumn
from drivetrain.serving.identity import Signer
from drivetrain.serving.journal import Upload
from drivetrain.serving.records import object_place, parquet
from drivetrain.serving.rows import PROBLEM_LIMIT, ROW_LIMIT, RowProblem, RowsError

BOOK_LIMIT: Final = 500_000
"""Decisions whose reports are remembered."""

_ID: Final = "decisionId"
_APPLIED: Final = "applied"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One reported outcome."""

    decision_id: str
    labels: Mapping[str, float | str | bool]
    kpi: float | None
    applied: Mapping[str, float | str] | None

    @property
    def content(self) -> str:
        """Equal for equal contents; 16 hex digits."""
        body = {"labels": dict(self.labels), "kpi": self.kpi, "applied": dict(self.applied) if self.applied else None}
        return hashlib.sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]


@dataclass(slots=True)
class OutcomeBook:
    """Numbers the reports of each decision: equal content keeps its number, other content gets the next one.

    One book per endpoint. It is a memory of the outcome log, from which it can be rebuilt with `remember`. It holds the
    `limit` decisions that were reported first most recently; a report about an older one is numbered as its first.
    """

    limit: int = BOOK_LIMIT
    _known: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def number(self, reports: Sequence[tuple[str, str]]) -> list[int]:
        """The sequence of each (decision id, content)."""
        numbers = []
        for decision_id, content in reports:
            known = self._known.get(decision_id, ())
            if content not in known:
                known = (*known, content)
                self._keep(decision_id, known)
            numbers.append(known.index(content))
        return numbers

    def remember(self, decision_id: str, content: str, sequence: int) -> None:
        """Restores one report from the log, the older ones first."""
        known = list(self._known.get(decision_id, ()))
        known.extend([""] * (sequence + 1 - len(known)))
        known[sequence] = content
        self._keep(decision_id, tuple(known))

    def _keep(self, decision_id: str, contents: tuple[str, ...]) -> None:
        if len(self._known) >= self.limit and decision_id not in self._known:
            del self._known[next(iter(self._known))]
        self._known[decision_id] = contents

    def __len__(self) -> int:
        return len(self._known)


@dataclass(frozen=True, slots=True)
class OutcomeContract:
    """What an outcome may carry: the target, other AfterAction columns, `kpi`, `applied`."""

    labels: Mapping[str, tuple[str, tuple[str, ...]]]
    """Label to its kind (binary, number, boolean, text) and its values."""
    levers: Mapping[str, bool]
    """Lever to whether it is categorical."""

    @classmethod
    def of(cls, policy: Policy) -> "OutcomeContract":
        """The outcomes of a policy's project."""
        target = policy.target
        kinds = {"Binary": "binary", "Multiclass": "text", "Regression": "number"}
        labels = {column.name: (_kind(column), ()) for column in policy.columns if column.role == "AfterAction"}
        return cls(
            {**labels, target.name: (kinds[target.type], target.classes)},
            {lever.name: lever.type == "Categorical" for lever in policy.levers},
        )

    def outcomes(self, documents: object, signer: Signer) -> list[Outcome]:
        """Types a batch of JSON outcomes. Raises RowsError naming rows and fields; then none is recorded."""
        if not isinstance(documents, list) or not documents:
            raise RowsError([RowProblem(0, "outcomes", "must be a list of at least one outcome.")])
        if len(documents) > ROW_LIMIT:
            raise RowsError([RowProblem(ROW_LIMIT, "outcomes", f"holds more than {ROW_LIMIT} outcomes.")])
        problems: list[RowProblem] = []
        result = []
        for row, document in enumerate(documents):
            outcome = self._outcome(row, document, signer, problems)
            if outcome is not None:
                result.append(outcome)
            if len(problems) >= PROBLEM_LIMIT:
                break
        if problems:
            raise RowsError(problems[:PROBLEM_LIMIT])
        return result

    def _outcome(self, row: int, document: object, signer: Signer, problems: list[RowProblem]) -> Outcome | None:
        if not isinstance(document, dict):
            problems.append(RowProblem(row, "outcomes", "must be an object of fields."))
            return None
        before = len(problems)
        decision_id = document.get(_ID)
        if not isinstance(decision_id, str) or not signer.issued([decision_id])[0]:
            problems.append(RowProblem(row, _ID, "is not the id of a decision of this endpoint."))
        labels: dict[str, float | str | bool] = {}
        for name, value in document.items():
            if name in (_ID, "kpi", _APPLIED) or value is None:
                continue
            if name not in self.labels:
                problems.append(RowProblem(row, name, "is no outcome of this project."))
                continue
            label = _label(value, *self.labels[name])
            if label is None:
                problems.append(RowProblem(row, name, f"is {str(value)[:40]!r}, which is not {self.labels[name][0]}."))
            else:
                labels[name] = label
        kpi = document.get("kpi")
        if kpi is not None and not _is_number(kpi):
            problems.append(RowProblem(row, "kpi", "must be a number."))
        applied = document.get(_APPLIED)
        if applied is not None:
            self._check_applied(row, applied, problems)
        if not labels and kpi is None and applied is None:
            problems.append(RowProblem(row, "outcomes", "reports nothing: neither a label, nor kpi, nor applied."))
        if len(problems) > before:
            return None
        return Outcome(str(decision_id), labels, None if kpi is None else float(kpi), applied)

    def _check_applied(self, row: int, applied: object, problems: list[RowProblem]) -> None:
        if not isinstance(applied, dict) or set(applied) != set(self.levers):
            wanted = ", ".join(sorted(self.levers))
            problems.append(RowProblem(row, _APPLIED, f"must map each lever ({wanted}) to the value applied."))
            return
        for name, value in applied.items():
            if not (isinstance(value, str) if self.levers[name] else _is_number(value)):
                wanted = "text" if self.levers[name] else "a number"
                problems.append(RowProblem(row, f"{_APPLIED}.{name}", f"must be {wanted}."))


def encode_outcomes(
    outcomes: Sequence[Outcome],
    sequences: Sequence[int],
    contract: OutcomeContract,
    *,
    at: datetime,
    writer: str,
    sequence: int,
) -> Upload:
    """The object of one call's outcomes."""
    columns: dict[str, pa.Array] = {
        log.DECISION_ID: pa.array([outcome.decision_id for outcome in outcomes], pa.string()),
        log.REPORTED_AT: pa.array([at] * len(outcomes), pa.timestamp("us", tz="UTC")),
        log.SEQUENCE: pa.array(list(sequences), pa.int32()),
        log.CONTENT: pa.array([outcome.content for outcome in outcomes], pa.string()),
        log.KPI: pa.array([outcome.kpi for outcome in outcomes], pa.float64()),
    }
    for name, (kind, _) in sorted(contract.labels.items()):
        type_ = {"text": pa.string(), "boolean": pa.bool_()}.get(kind, pa.float64())
        columns[log.LABEL_PREFIX + name] = pa.array([outcome.labels.get(name) for outcome in outcomes], type_)
    for name, text in sorted(contract.levers.items()):
        values = [outcome.applied[name] if outcome.applied else None for outcome in outcomes]
        columns[log.APPLIED_PREFIX + name] = pa.array(
            [v if v is None or text else float(v) for v in values], pa.string() if text else pa.float64()
        )
    return Upload(f"{layout.OUTCOMES}/{object_place(at, writer, sequence)}.parquet", parquet(pa.table(columns)))


def _kind(column: DeclaredColumn) -> str:
    return {"String": "text", "Timestamp": "text", "Boolean": "boolean"}.get(column.type, "number")


def _label(value: object, kind: str, values: tuple[str, ...]) -> float | str | bool | None:
    match kind:
        case "binary":
            return float(value) if value in (0, 1) and isinstance(value, bool | int | float) else None
        case "number":
            return float(value) if _is_number(value) and isinstance(value, int | float) else None
        case "boolean":
            return value if isinstance(value, bool) else None
    return value if isinstance(value, str) and (not values or value in values) else None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
