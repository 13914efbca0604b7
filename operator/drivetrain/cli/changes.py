"""What a manifest changes of a stored spec, field by field, defaults on both sides filled in. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from drivetrain.api.canonical import canonical_json
from drivetrain.api.documents import JSON

_LONGEST = 90


@dataclass(frozen=True, slots=True)
class Change:
    """One field; None on one side where it is added or removed."""

    field: str
    before: JSON
    after: JSON

    def __str__(self) -> str:
        if self.before is None:
            return f"+ {self.field}: {_short(self.after)}"
        if self.after is None:
            return f"- {self.field}: {_short(self.before)}"
        return f"~ {self.field}: {_short(self.before)} -> {_short(self.after)}"


def changes(before: JSON, after: JSON, field: str = "spec") -> tuple[Change, ...]:
    """The fields in which two specs differ; elements of lists are told apart by their name, where they have one."""
    return tuple(_changes(before, after, field))


def _changes(before: JSON, after: JSON, field: str) -> Iterator[Change]:
    if before == after:
        return
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in dict.fromkeys((*before, *after)):
            yield from _changes(before.get(key), after.get(key), f"{field}.{key}")
    elif (old := _elements(before)) is not None and (new := _elements(after)) is not None:
        for key in dict.fromkeys((*old, *new)):
            yield from _changes(old.get(key), new.get(key), f"{field}[{key}]")
    else:
        yield Change(field, before, after)


def _elements(value: JSON) -> dict[str, JSON] | None:
    """The elements of a list by name or place; None for what is no list."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        return None
    named: dict[str, JSON] = {str(each["name"]): each for each in value if isinstance(each, Mapping) and "name" in each}
    if len(named) == len(value):
        return named
    return {str(index): each for index, each in enumerate(value)}


def _short(value: JSON) -> str:
    told = canonical_json(value)
    return told if len(told) <= _LONGEST else f"{told[: _LONGEST - 1]}…"
