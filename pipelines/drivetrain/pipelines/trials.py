"""The trial log: what was tried, append-only per attempt; a new attempt reads all lower ones and goes on from there."""

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Protocol

from drivetrain.api.canonical import canonical_json
from drivetrain.api.layout import attempt as attempt_key
from drivetrain.api.v1alpha1.training import ParameterValue
from drivetrain.pipelines.stage import Guard
from drivetrain.store import ObjectStore


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """One finished trial."""

    key: str
    """Names the trial: equal keys mean equal inputs (data, candidate, parameters, seed), so it is not run again."""
    candidate: str
    parameters: Mapping[str, ParameterValue]
    metrics: Mapping[str, float]
    """On the validation rows."""
    seconds: float


class TrialLog(Protocol):
    """Where finished trials are remembered."""

    def finished(self) -> Mapping[str, TrialRecord]:
        """Every finished trial of this run by key, those of earlier attempts included."""
        ...

    def append(self, record: TrialRecord) -> None:
        """Remembers a trial before its result is used; safe to call from several threads. Raises FencedError."""
        ...


class StoredTrialLog:
    """One small object a trial under `attempt-<n>/trials/`, because S3 knows no append."""

    def __init__(
        self, store: ObjectStore, run_uid: str, attempt: int, guard: Guard, heard: Callable[[int], None]
    ) -> None:
        """Reads the logs of this and all lower attempts; `heard` is told how many trials are finished."""
        self._store, self._guard, self._heard = store, guard, heard
        self._own = f"{attempt_key(run_uid, attempt)}/trials"
        self._lock = threading.Lock()
        self._records: dict[str, TrialRecord] = {}
        for number in range(1, attempt + 1):
            for info in store.list(f"{attempt_key(run_uid, number)}/trials/"):
                record = TrialRecord(**json.loads(store.get(info.key)))
                self._records.setdefault(record.key, record)
        heard(len(self._records))

    def finished(self) -> Mapping[str, TrialRecord]:
        with self._lock:
            return dict(self._records)

    def append(self, record: TrialRecord) -> None:
        self._guard.check()
        # Named by its key and written once: a trial that two incarnations of one attempt finish is logged once.
        self._store.put_if_absent(f"{self._own}/{record.key}.json", canonical_json(asdict(record)).encode())
        with self._lock:
            self._records[record.key] = record
            count = len(self._records)
        self._heard(count)
