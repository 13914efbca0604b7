"""The order in which states may follow one another, and which of them must be seen."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

State = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """One state on the way."""

    state: State
    required: bool = True


def must(*state: str) -> Step:
    """A state that is always shown."""
    return Step(state)


def may(*state: str) -> Step:
    """A state that is shown or not: a controller that looks less often steps over it."""
    return Step(state, required=False)


def distinct(states: Sequence[State]) -> tuple[State, ...]:
    """The states without repetitions of the one before."""
    return tuple(state for state, _ in groupby(states))


def follows(seen: Sequence[State], way: Sequence[Step]) -> str:
    """Why the states seen do not follow this way, empty where they do."""
    told = f"seen: {distinct(seen)}"
    places = {0}  # how many steps may have been passed; more than one where a state is on the way more than once
    for state in distinct(seen):
        reached = {index + 1 for index, step in enumerate(way) if step.state == state}
        places = {
            after for after in reached if any(_may_skip(way[place : after - 1]) for place in places if place < after)
        }
        if not places:
            return f"{state} may not come where it came; {told}"
    return "" if any(_may_skip(way[place:]) for place in places) else f"more had to come; {told}"


def _may_skip(steps: Sequence[Step]) -> bool:
    return not any(step.required for step in steps)
