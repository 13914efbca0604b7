"""Closed intervals with interval arithmetic (Moore, Kearfott & Cloud 2009, chapter 2): what an expression can reach.

Values are finite, bounds may be infinite, so 0 * inf is 0 here. Every result contains all that is reachable.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Interval:
    """All values from `low` to `high`, and NULL as well where `nullable`."""

    low: float
    high: float
    nullable: bool = False

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise ValueError(f"an interval needs low <= high, not [{self.low}, {self.high}]")

    @property
    def finite(self) -> bool:
        """Whether both ends are finite."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    def contains(self, other: "Interval", *, tolerance: float = 1e-9) -> bool:
        """Whether `other` lies inside, up to a relative tolerance that absorbs rounding."""
        return (
            self.low <= other.low + tolerance * max(1.0, abs(other.low))
            and other.high - tolerance * max(1.0, abs(other.high)) <= self.high
        )

    def hull(self, other: "Interval") -> "Interval":
        """The smallest interval around both."""
        return Interval(min(self.low, other.low), max(self.high, other.high), self.nullable or other.nullable)

    def __neg__(self) -> "Interval":
        return Interval(-self.high, -self.low, self.nullable)

    def __add__(self, other: "Interval") -> "Interval":
        return Interval(self.low + other.low, self.high + other.high, self.nullable or other.nullable)

    def __sub__(self, other: "Interval") -> "Interval":
        return self + -other

    def __mul__(self, other: "Interval") -> "Interval":
        corners = [_times(x, y) for x in (self.low, self.high) for y in (other.low, other.high)]
        return Interval(min(corners), max(corners), self.nullable or other.nullable)

    def reciprocal(self) -> "Interval":
        """1/x. Raises ZeroDivisionError when 0 lies inside."""
        if self.low <= 0 <= self.high:
            raise ZeroDivisionError("the interval contains 0")
        return Interval(1 / self.high, 1 / self.low, self.nullable)

    def square(self) -> "Interval":
        """x * x, which knows that both factors are the same."""
        product = self * self
        return Interval(0.0 if self.low <= 0 <= self.high else product.low, product.high, self.nullable)

    def magnitude(self) -> "Interval":
        """|x|."""
        low = 0.0 if self.low <= 0 <= self.high else min(abs(self.low), abs(self.high))
        return Interval(low, max(abs(self.low), abs(self.high)), self.nullable)


TRUTH = Interval(0.0, 1.0)
"""What a comparison can yield."""


def least(intervals: tuple[Interval, ...]) -> Interval:
    """The smallest of several values, NULLs left out as SQL does: one that may be NULL caps nothing."""
    certain = [interval.high for interval in intervals if not interval.nullable]
    high = min(certain) if certain else max(interval.high for interval in intervals)
    return Interval(min(interval.low for interval in intervals), high, not certain)


def greatest(intervals: tuple[Interval, ...]) -> Interval:
    """The largest of several values, NULLs left out as SQL does."""
    return -least(tuple(-interval for interval in intervals))


def coalesce(intervals: tuple[Interval, ...]) -> Interval:
    """The first value that is not NULL; arguments after one that is never NULL are not reached."""
    result = intervals[0]
    for interval in intervals[1:]:
        if not result.nullable:
            return result
        result = Interval(min(result.low, interval.low), max(result.high, interval.high), interval.nullable)
    return result


def _times(x: float, y: float) -> float:
    return 0.0 if x == 0 or y == 0 else x * y
