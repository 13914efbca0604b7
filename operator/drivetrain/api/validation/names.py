"""Names: of objects, and of things that must be told apart."""

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from drivetrain.api.errors import Problem
from drivetrain.api.parser import RESERVED

_DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_REQUEST_WORDS = frozenset({"today"})
"""Fields of a request that cannot be columns."""


class Named(Protocol):
    """Anything with a name."""

    @property
    def name(self) -> str: ...


def check_name(name: str, limit: int, subject: str, *, field: str = "metadata.name") -> Iterator[Problem]:
    """DNS-1035, and short enough for the names of children."""
    if len(name) > limit or not _DNS_1035.fullmatch(name):
        found = f"{name!r} has {len(name)} characters." if len(name) > limit else f"{name!r} is not one."
        cause = f"{subject} takes at most {limit} lower-case letters, digits and dashes, and starts with a letter"
        yield Problem(field, f"{cause}; {found}", "Rename it.")


def check_word(name: str, field: str) -> Iterator[Problem]:
    """A name that expressions and requests can use."""
    if name.lower() in RESERVED | _REQUEST_WORDS:
        where = "a request" if name.lower() in _REQUEST_WORDS else "an expression"
        yield Problem(field, f"{name} has another meaning in {where}.", "Choose another name.")


def check_unique(things: Iterable[Named], field: str) -> Iterator[Problem]:
    """Lists of named things."""
    yield from _repeated((thing.name for thing in things), lambda index: f"{field}[{index}].name")


def check_distinct(values: Iterable[object], field: str) -> Iterator[Problem]:
    """Lists of plain values."""
    yield from _repeated(values, lambda index: f"{field}[{index}]")


def nearest(name: str, known: Iterable[str]) -> str:
    """A remedy for a name that is not known: the nearest one that is, or all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    if near:
        return f"Did you mean {near[0]}?"
    return f"Known: {', '.join(names[:20])}." if names else "There is none."


def listed(words: Sequence[str]) -> str:
    """`a, b or c`."""
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


class _Field(Protocol):
    def __call__(self, index: int) -> str: ...


def _repeated(values: Iterable[object], field: _Field) -> Iterator[Problem]:
    seen: set[tuple[type, object]] = set()
    for index, value in enumerate(values):
        if (type(value), value) in seen:
            yield Problem(field(index), f"{value} is there twice.", "Remove or rename one.")
        seen.add((type(value), value))
