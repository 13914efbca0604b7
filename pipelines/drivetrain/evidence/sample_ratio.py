"""Sequential check that both arms report at equal rates, for KPIs whose missing outcomes are excluded.

Source: Lindon & Malek, "Anytime-valid inference for multinomial count data" (NeurIPS 2022), here with fixed bets: under
the null a reporting unit belongs to the candidate with the probability w at which it was assigned.
"""

import numpy as np

from drivetrain.evidence.betting import BettingSequence, BettingState
from drivetrain.evidence.intervals import Bools, Floats


class SampleRatio:
    """Evidence against equal reporting rates; `mismatch` is falsely true with probability at most alpha, ever."""

    def __init__(self, alpha: float = 0.001) -> None:
        self._sequence = BettingSequence(alpha=alpha, bound=1.0, means=np.zeros(1))

    def update(self, candidate: Bools, weight: Floats) -> None:
        """Add the units of whole matured cohorts that did report: arm, and candidate's weight when it was assigned."""
        self._sequence.update(candidate - weight, np.ones_like(weight))

    @property
    def mismatch(self) -> bool:
        """Whether one arm is proved to report more often than the other, which halts the canary."""
        return bool(self._sequence.exceeds(0.0) or self._sequence.falls_below(0.0))

    def state(self) -> BettingState:
        """The small value from which the check goes on."""
        return self._sequence.state()

    def restore(self, state: BettingState) -> None:
        """Go on from a state."""
        self._sequence.restore(state)
