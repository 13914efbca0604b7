"""What to do with a component, decided from what is seen of it. Pure; supervisor.py acts on it.

Waiting --needs ready--> Starting --probe answers--> Ready
Starting, Ready --process gone, or silent for too long--> BackingOff --delay over--> Waiting
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from drivetrain.local.components import Component

BACKOFF_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0)
STEADY_SECONDS = 60.0
"""A component that was ready for this long has recovered: the next crash counts as the first."""

CRASHES_UNTIL_HOPELESS = 5
"""So many crashes in a row, without ever becoming ready, end the wait of `up`; restarts go on."""


class Phase(StrEnum):
    """Where a component stands."""

    WAITING = "Waiting"
    STARTING = "Starting"
    READY = "Ready"
    BACKING_OFF = "BackingOff"


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of a component: times in seconds of one monotonic clock."""

    phase: Phase
    since: float
    alive: bool
    answered_at: float | None
    crashes: int
    needs_ready: bool


@dataclass(frozen=True, slots=True)
class Start:
    """Start the process."""


@dataclass(frozen=True, slots=True)
class BecomeReady:
    """It answers for the first time; `crashes` is what is held against it from now on."""


@dataclass(frozen=True, slots=True)
class Recover:
    """It has been steady: forget its crashes."""


@dataclass(frozen=True, slots=True)
class BackOff:
    """It crashed or fell silent: end what is left of it and wait."""

    why: str


@dataclass(frozen=True, slots=True)
class Retry:
    """The delay is over."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do now."""


Step = Start | BecomeReady | Recover | BackOff | Retry | Wait


def decide(component: Component, seen: Seen, now: float) -> Step:
    """Return the next step of a component."""
    match seen.phase:
        case Phase.WAITING:
            return Start() if seen.needs_ready else Wait()
        case Phase.BACKING_OFF:
            return Retry() if now - seen.since >= backoff(seen.crashes) else Wait()
        case Phase.STARTING:
            if not seen.alive:
                return BackOff("it ended while starting")
            if seen.answered_at is not None and seen.answered_at >= seen.since:
                return BecomeReady()
            if now - seen.since > component.start_seconds:
                return BackOff(f"it was not ready after {component.start_seconds:.0f} s")
            return Wait()
        case Phase.READY:
            if not seen.alive:
                return BackOff("it ended")
            answered = max(seen.since, seen.answered_at or seen.since)
            if now - answered > component.silence_seconds:
                return BackOff(f"it did not answer for {component.silence_seconds:.0f} s")
            if seen.crashes and now - seen.since > STEADY_SECONDS:
                return Recover()
            return Wait()


def backoff(crashes: int) -> float:
    """Seconds to wait after so many crashes in a row."""
    return BACKOFF_SECONDS[min(max(crashes, 1), len(BACKOFF_SECONDS)) - 1]


def stop_order(
    components: tuple[Component, ...], set_up_needs: Mapping[str, tuple[str, ...]]
) -> tuple[tuple[str, ...], ...]:
    """Group the names so that everything stops before what it needs; groups stop one after the other."""
    needs = {component.name: set(component.needs) for component in components}
    for name, of in set_up_needs.items():
        for wanted in needs.values():
            if name in wanted:
                wanted.remove(name)
                wanted.update(of)
    groups: list[tuple[str, ...]] = []
    while needs:
        needed = set().union(*needs.values())
        free = tuple(name for name in needs if name not in needed)
        groups.append(free)
        for name in free:
            del needs[name]
    return tuple(groups)
