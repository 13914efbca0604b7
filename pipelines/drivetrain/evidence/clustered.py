"""The mean of rows whose errors go together within clusters, such as the decisions of one customer."""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from drivetrain.api.errors import DrivetrainError
from drivetrain.evidence.intervals import Floats, Interval

Clusters = NDArray[np.int64]


def count(clusters: Clusters) -> int:
    """How many different ones there are."""
    return len(np.unique(clusters))


def sums(values: Floats, clusters: Clusters) -> Floats:
    """The sum of each cluster's rows."""
    return np.bincount(np.unique(clusters, return_inverse=True)[1], weights=values).astype(np.float64)


def mean(values: Floats, clusters: Clusters, *, level: float = 0.95) -> Interval:
    """The mean row with a two-sided interval: Student's t on the clusters' summed differences about it.

    Raises DrivetrainError for fewer than two clusters.
    """
    independent = count(clusters)
    if independent < 2:
        raise DrivetrainError(f"An interval needs at least two independent groups of rows, got {independent}.")
    centre = float(values.mean())
    apart = sums(values - centre, clusters)
    error = float(np.sqrt(np.sum(apart**2) * independent / (independent - 1))) / len(values)
    reach = float(student.ppf((1 + level) / 2, independent - 1)) * error
    return Interval(centre, centre - reach, centre + reach)
