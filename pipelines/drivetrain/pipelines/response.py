"""How predictions answer a lever: rows repeated over its grid, and the share of steps against its declared effect."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from drivetrain.api.v1alpha1.lever import Lever
from drivetrain.pipelines.features import FeaturePlan, feed_of, matrices
from drivetrain.pipelines.graph import Singles

STEP_TOLERANCE = 1e-6
"""A step against the effect counts from this size on, relative to the largest score: float32 sums differ by less."""
PROBE_ROWS = 200


@dataclass(frozen=True, slots=True)
class Probe:
    """Rows repeated over one lever's grid: row 0 at each value, then row 1, ..."""

    lever: str
    sign: int
    """1 where the effect is Increasing, -1 where it is Decreasing."""
    values: int
    plain: Singles
    scaled: Singles


def probe_frame(frame: pl.DataFrame, lever: Lever) -> pl.DataFrame:
    """Every row at every value of the lever, other columns as they are."""
    values = [value if isinstance(value, str) else float(value) for value in lever.values()]
    own = pl.DataFrame({lever.name: values}).cast({lever.name: frame.schema[lever.name]})
    columns = frame.columns
    return frame.drop(lever.name).join(own, how="cross").select(columns)


def probes(frame: pl.DataFrame, plan: FeaturePlan, levers: Sequence[Lever]) -> tuple[Probe, ...]:
    """Probes of the first rows for levers with a declared effect."""
    made = []
    for lever in levers:
        plain, scaled = matrices(plan, feed_of(probe_frame(frame.head(PROBE_ROWS), lever), plan.inputs))
        made.append(Probe(lever.name, 1 if lever.effect == "Increasing" else -1, len(lever.values()), plain, scaled))
    return tuple(made)


def violations(probe: Probe, scores: Singles) -> float:
    """Share of steps on the grid that go against the effect; `scores` are [rows * values]."""
    return against(scores, probe.values, probe.sign)


def against(scores: Singles, values: int, sign: int) -> float:
    """Share of neighbouring grid values between which the score moves against `sign`."""
    if values < 2 or not scores.size:
        return 0.0
    steps = np.diff(scores.reshape(-1, values).astype(np.float64), axis=1) * sign
    return float(np.mean(steps < -STEP_TOLERANCE * max(1.0, float(np.abs(scores).max()))))
