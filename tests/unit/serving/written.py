"""Matured cohorts written column by column, for evidence that needs no endpoint."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from drivetrain.api import decision_log as log
from drivetrain.serving.maturation import Cohort, Reported

_NUMBERS = (
    log.EXPECTED_VALUE,
    log.PREDICTION_STABLE,
    log.PREDICTION_CANDIDATE,
    log.M_STABLE,
    log.M_CANDIDATE,
    log.M_HOLDOUT,
    log.TARGET_M_STABLE,
    log.TARGET_M_CANDIDATE,
)


def cohort(
    seconds: NDArray[np.float64],
    columns: Mapping[str, object],
    outcomes: Sequence[Mapping[str, object] | None],
) -> Cohort:
    """Decisions at `seconds` since 1970, with columns of the log (a scalar for all rows) and what was reported."""
    count = len(seconds)
    defaults: dict[str, object] = {log.EXPLORED: False, log.FALLBACK: "", log.WEIGHT: 0.0, log.ROLLOUT: ""}
    numbers = dict.fromkeys(_NUMBERS, np.nan)
    table: dict[str, pa.Array] = {
        log.DECISION_ID: pa.array([f"d{second:.6f}-{row:06d}" for row, second in enumerate(seconds.tolist())]),
        log.DECIDED_AT: pa.array((seconds * 1e6).astype(np.int64)).cast(pa.timestamp("us", tz="UTC")),
    }
    table[log.UNIT] = table[log.DECISION_ID]
    for name, values in {**numbers, **defaults, **columns}.items():
        whole = isinstance(values, (np.ndarray, list))
        table[name] = pa.array(values if whole else [values] * count)
    at = datetime.fromtimestamp(float(seconds[0]), UTC)
    reports = tuple(None if given is None else Reported(0, at, None, dict(given)) for given in outcomes)
    return Cohort(pa.table(table), reports)
