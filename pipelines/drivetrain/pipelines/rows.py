"""The rows that a run learns from: one table, raw as contracted, with what the line must know about each row.

Columns whose names begin with @ are ours; no contracted column can collide with them.
"""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

PART: Final = "@part"
"""String: train, validation or test; a stable hash of the row's group, or its time."""
HALF: Final = "@half"
"""Int8, 0 or 1: which cross-fitted half the row trains; another stable hash of the same group."""
GROUP: Final = "@group"
"""Int64: names the group that moves together; rows of one group are no independent evidence."""
WEIGHT: Final = "@weight"
"""Float64: what the row counts in training; 1 unless the run declares a window."""
PROPENSITY: Final = "@propensity"
"""Float64: logged probability of the row's action, null when unlogged."""
EXPLORED: Final = "@explored"
"""Boolean: the action was drawn by exploration (decision log), or has a logged propensity (other sources)."""
DECIDED_AT: Final = "@decided_at"
"""Datetime in microseconds, UTC: when the decision was made; null for rows of other sources."""
FALLBACK: Final = "@fallback"
"""Boolean: the fallback answered; such rows may train, and are left out of policy value."""
SOURCE: Final = "@source"
"""String: name of the source that the row came from."""

Part = Literal["train", "validation", "test"]


@dataclass(frozen=True, slots=True)
class TrainingRows:
    """One DVC version of the data, split.

    `frame` has every contracted column but the Derived, AfterAction (except the target) and Assignment ones: Integer as
    Int64, Float as Float64, Boolean, String, Timestamp as Datetime in microseconds UTC; the target as Int8 0/1
    (Binary), String (Multiclass) or Float64 (Regression) and never null; then the columns above. Derived columns are
    computed by the graph. Row order is part of the version.
    """

    frame: pl.DataFrame
    version: str
    """md5 of the Parquet file that DVC keeps."""

    def mask(self, part: Part) -> npt.NDArray[np.bool_]:
        """[rows]: which rows belong to `part`."""
        return (self.frame[PART] == part).to_numpy()

    @property
    def train(self) -> npt.NDArray[np.bool_]:
        """[rows]: rows that train."""
        return self.mask("train")

    @property
    def validation(self) -> npt.NDArray[np.bool_]:
        """[rows]: rows that tune."""
        return self.mask("validation")

    @property
    def fitted(self) -> npt.NDArray[np.bool_]:
        """[rows]: rows that count and that models were fitted or tuned on."""
        return (self.train | self.validation) & (self.weight > 0)

    @property
    def test(self) -> npt.NDArray[np.bool_]:
        """[rows]: rows that the gates judge on."""
        return self.mask("test")

    @property
    def half(self) -> npt.NDArray[np.int8]:
        """[rows]: 0 or 1."""
        return self.frame[HALF].to_numpy()

    @property
    def group(self) -> npt.NDArray[np.int64]:
        """[rows]: equal numbers move together."""
        return self.frame[GROUP].to_numpy()

    @property
    def weight(self) -> npt.NDArray[np.float64]:
        """[rows]: training weights, at least 0."""
        return self.frame[WEIGHT].to_numpy()

    @property
    def propensity(self) -> npt.NDArray[np.float64]:
        """[rows]: logged probability of the action, NaN when unlogged."""
        return self.frame[PROPENSITY].fill_null(float("nan")).to_numpy()

    @property
    def explored(self) -> npt.NDArray[np.bool_]:
        """[rows]: whether the action was drawn by exploration."""
        return self.frame[EXPLORED].to_numpy()

    @property
    def logged(self) -> npt.NDArray[np.bool_]:
        """[rows]: whether the row is a matured decision of the project's own log."""
        return self.frame[DECIDED_AT].is_not_null().to_numpy()

    @property
    def experimental(self) -> bool:
        """Whether every row came with a logged propensity; else lever effects are observational."""
        return self.frame[PROPENSITY].null_count() == 0
