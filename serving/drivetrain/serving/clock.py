"""The clock of the endpoint's edge; everything inward takes time as an argument."""

from datetime import UTC, datetime


def now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)  # noqa: TID251 - this is the edge that reads the clock
