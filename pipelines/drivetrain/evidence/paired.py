"""Two models on the same rows: the paired interval of an offline gate, and the sequence shown beside a canary."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drivetrain.api.errors import DrivetrainError
from drivetrain.evidence import clustered
from drivetrain.evidence.asymptotic import AsymptoticSequence, AsymptoticState
from drivetrain.evidence.intervals import Bounds, Floats, Interval


@dataclass(frozen=True, slots=True)
class PairedComparison:
    """Mean loss of the challenger minus that of the champion on the same rows, with a two-sided interval."""

    difference: Interval
    rows: int
    clusters: int

    def not_worse(self, margin: float) -> bool:
        """Whether the challenger's mean loss is proved to exceed the champion's by less than `margin`."""
        return self.difference.upper < margin

    @property
    def better(self) -> bool:
        """Whether the challenger's mean loss is proved to be lower."""
        return self.difference.upper < 0


def compare_losses(
    champion: Floats, challenger: Floats, *, groups: NDArray[np.int64] | None = None, level: float = 0.95
) -> PairedComparison:
    """Compare row-wise losses (lower is better) of two models on rows that neither saw.

    `groups` numbers the rows' clusters, whose errors go together (a split by group needs it); without it each row is
    its own. Raises DrivetrainError for fewer than two clusters or unequal lengths.
    """
    if champion.shape != challenger.shape or champion.ndim != 1:
        raise DrivetrainError("Champion and challenger must be scored on the same rows.")
    clusters = np.arange(len(champion)) if groups is None else groups
    difference = clustered.mean(challenger - champion, clusters, level=level)
    return PairedComparison(difference, len(champion), clustered.count(clusters))


class LossDifference:
    """Anytime-valid sequence of challenger's minus champion's loss on the same decisions: the model metric, shown only.

    Losses are clipped to the declared range, so the mean is one of clipped losses (log loss: declare the clip of the
    predicted probabilities).
    """

    def __init__(self, alpha: float, clip: Bounds) -> None:
        self._clip = clip
        self._sequence = AsymptoticSequence(alpha=alpha, scale=clip.width)

    def update(self, champion: Floats, challenger: Floats) -> None:
        """Add the losses of matured decisions, in decision order."""
        clipped = [np.clip(loss, self._clip.minimum, self._clip.maximum) for loss in (champion, challenger)]
        self._sequence.update(clipped[1] - clipped[0], np.ones(len(champion)), None)

    def interval(self) -> Interval:
        """Mean difference so far, with bounds that hold at every look."""
        return self._sequence.interval()

    def state(self) -> AsymptoticState:
        """The small value from which the sequence goes on."""
        return self._sequence.state()

    def restore(self, state: AsymptoticState) -> None:
        """Go on from a state."""
        self._sequence.restore(state)
