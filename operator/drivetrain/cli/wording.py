"""Times, numbers and states as people read them. Pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from drivetrain.api.meta import Condition, condition_of

Tone = Literal["good", "busy", "bad", "quiet"]
STYLES: dict[Tone, str] = {"good": "green", "busy": "yellow", "bad": "red", "quiet": "dim"}

_UNITS = (("d", timedelta(days=1)), ("h", timedelta(hours=1)), ("m", timedelta(minutes=1)), ("s", timedelta(seconds=1)))


def length(span: timedelta) -> str:
    """A time span in its two largest units: 3d4h, 12m, 45s."""
    parts: list[str] = []
    rest = max(span, timedelta())
    for unit, size in _UNITS:
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
        elif parts:
            break
        if len(parts) == 2:
            break
    return "".join(parts) or "0s"


def ago(since: datetime | None, now: datetime) -> str:
    """How long ago, empty where it is not known."""
    return length(now - since) if since is not None else ""


def until(when: datetime, now: datetime) -> str:
    """A time to come, as a span where it is near."""
    return f"in {length(when - now)}" if when > now else "now"


def number(value: float) -> str:
    """Four significant digits, without an exponent where people do not need one."""
    return f"{value:,.4g}" if abs(value) < 1e6 else f"{value:,.0f}"


def signed(value: float) -> str:
    """A difference, with its sign."""
    return f"{value:+,.4g}"


def size(count: int) -> str:
    """Bytes in binary units."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


@dataclass(frozen=True, slots=True)
class Standing:
    """How an object stands, by the rules of kstatus."""

    word: str
    tone: Tone
    reason: str = ""
    message: str = ""

    def __str__(self) -> str:
        return f"{self.word} ({self.reason})" if self.reason and self.reason != self.word else self.word


def standing(conditions: tuple[Condition, ...], *, deleting: bool = False, behind: bool = False) -> Standing:
    """The state that the conditions tell; `behind`: the operator has not looked at the newest spec yet."""
    if deleting:
        return Standing("Terminating", "busy")
    ready, stalled = condition_of(conditions, "Ready"), condition_of(conditions, "Stalled")
    if ready is None:
        return Standing("Unseen", "busy", "", "The operator has not looked at it yet; see `drivetrain doctor`.")
    if stalled is not None and stalled.status == "True":
        word = "Ready, stalled" if ready.status == "True" else "Stalled"
        return Standing(word, "bad", stalled.reason, stalled.message)
    reconciling = condition_of(conditions, "Reconciling")
    if reconciling is not None and reconciling.status == "True":
        word = "Ready, reconciling" if ready.status == "True" else "Reconciling"
        return Standing(word, "busy", reconciling.reason, reconciling.message)
    if ready.status == "True":
        return Standing("Ready", "busy" if behind else "good", "newer spec unseen" if behind else "", ready.message)
    return Standing("NotReady", "bad", ready.reason, ready.message)
