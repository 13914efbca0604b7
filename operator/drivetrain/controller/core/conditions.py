"""Conditions by the rules of kstatus: Ready always, Reconciling and Stalled only while true, and never both."""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from pydantic import ValidationError

from drivetrain.api.documents import JSON, Document, annotations_of, documents, integer, text
from drivetrain.api.errors import InvalidSpecError, Problem
from drivetrain.api.meta import Condition, Resource, condition_of, with_transitions
from drivetrain.controller.core.plan import Emit, Plan

R = TypeVar("R", bound=Resource)
_REASON = re.compile(r"[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?")
_TEXT_LIMIT = 1024
_WRONG = ("Degraded", "CircuitOpen", "Miscalibrated")
"""Conditions that speak of trouble where they are there at all."""


@dataclass(frozen=True, slots=True)
class Fact:
    """A reason in one CamelCase word, and the message for people."""

    reason: str
    message: str = ""


KUBERAY_MISSING = Fact(
    "KubeRayMissing",
    "The API server does not know RayJobs and RayServices: install KubeRay with its custom resource definitions. "
    "Everything goes on by itself then.",
)


def conditions(
    *, ready: bool, why: Fact, reconciling: Fact | None = None, stalled: Fact | None = None
) -> tuple[Condition, ...]:
    """Ready, and of Reconciling and Stalled the one that holds; `why` is Ready's reason either way."""
    assert reconciling is None or stalled is None
    result = [condition("Ready", "True" if ready else "False", why)]
    if reconciling is not None:
        result.append(condition("Reconciling", "True", reconciling))
    if stalled is not None:
        result.append(condition("Stalled", "True", stalled))
    return tuple(result)


def condition(type_: str, status: str, why: Fact) -> Condition:
    """A condition whose reason and message keep to their limits whatever they were made from."""
    return Condition.model_validate(
        {"type": type_, "status": status, "reason": reason_of(why.reason), "message": clipped(why.message)}
    )


def reason_of(untrusted: str, default: str = "Failed") -> str:
    """`untrusted` where it can be a condition's reason, else `default`."""
    return untrusted if _REASON.fullmatch(untrusted) and len(untrusted) <= 128 else default


def clipped(message: str, limit: int = _TEXT_LIMIT) -> str:
    """The message, cut to what a status may hold."""
    return message if len(message) <= limit else message[: limit - 1] + "…"


def settled(owner: Document, after: tuple[Condition, ...], now: datetime) -> tuple[Condition, ...]:
    """The conditions to store: with the time of their last transition and the generation they speak of."""
    return with_transitions(
        previous(owner), after, now=now.replace(microsecond=0), generation=integer(owner, "metadata", "generation")
    )


def previous(owner: Document) -> tuple[Condition, ...]:
    """The conditions as stored; one that does not parse counts as absent."""
    found = []
    for document in documents(owner, "status", "conditions"):
        try:
            found.append(Condition.model_validate(document))
        except ValidationError:
            continue
    return tuple(found)


def transition(owner: Document, after: tuple[Condition, ...], *types: str) -> tuple[Emit, ...]:
    """An event for each of these condition types (Ready unless named) whose status or reason is new."""
    before = previous(owner)
    emitted = []
    for type_ in types or ("Ready",):
        new, old = condition_of(after, type_), condition_of(before, type_)
        if new is None or (old is not None and (old.status, old.reason) == (new.status, new.reason)):
            continue
        wrong = condition_of(after, "Stalled") is not None or type_ in _WRONG
        emitted.append(Emit("Warning" if wrong else "Normal", new.reason, new.message or new.reason))
    return tuple(emitted)


def parse(model: type[R], owner: Document) -> R:
    """The typed resource without its status, which is a view and never an input.

    Raises:
        InvalidSpecError: it does not fit the model.
    """
    return model.parse({key: part for key, part in owner.items() if key != "status"})


def check(problems: tuple[Problem, ...], *, of: str = "") -> None:
    """Raise InvalidSpecError where there are problems; `of` names the resource if it is not the owner."""
    if problems:
        named = (Problem(f"{of}: {each.field}", each.cause, each.remedy) for each in problems)
        raise InvalidSpecError(tuple(named) if of else problems)


def stalled_plan(owner: Document, why: Fact, now: datetime) -> Plan:
    """Say what is wrong and touch nothing: no children for what cannot mean what it says."""
    after = settled(owner, conditions(ready=False, why=why, stalled=why), now)
    status: dict[str, JSON] = {
        "observedGeneration": integer(owner, "metadata", "generation"),
        "conditions": [each.model_dump(mode="json", by_alias=True, exclude_none=True) for each in after],
    }
    return Plan(effects=transition(owner, after), status=status)


def invalid_plan(owner: Document, error: InvalidSpecError, now: datetime) -> Plan:
    """Stalled, reason=InvalidSpec, with the same message that offline validation gives."""
    return stalled_plan(owner, Fact(InvalidSpecError.reason, error.message), now)


def is_deleting(owner: Document) -> bool:
    """Whether the object is on its way out: its children follow by garbage collection, nothing is to be done."""
    return bool(text(owner, "metadata", "deletionTimestamp"))


def is_inherited(owner: Document, record: Document | None) -> bool:
    """Whether a child is still that of a deleted namesake, which the garbage collector has yet to take away."""
    namesakes = {
        text(each, "uid")
        for each in documents(record or {}, "metadata", "ownerReferences")
        if _named(each, text(each, "name")) == _named(owner, text(owner, "metadata", "name"))
    }
    return bool(namesakes) and text(owner, "metadata", "uid") not in namesakes


def _named(document: Document, name: str) -> tuple[str, str, str]:
    """Group, kind and name: apps/v1 has Deployments too."""
    return text(document, "apiVersion").partition("/")[0], text(document, "kind"), name


def is_owned(owner: Document, record: Document | None) -> bool:
    """Whether the ledger is this very object's: one that was orphaned or restored counts another's generations."""
    owners = documents(record or {}, "metadata", "ownerReferences")
    return any(text(each, "uid") == text(owner, "metadata", "uid") for each in owners)


def unanswered(owner: Document, annotation: str, answered: dict[str, str]) -> str:
    """The annotation's value if it was not acted on yet, else an empty text."""
    found = annotations_of(owner).get(annotation, "")
    return found if found and answered.get(annotation) != found else ""


def moment(written: str) -> datetime | None:
    """The time written in RFC 3339, or None where it is not one."""
    try:
        found = datetime.fromisoformat(written)
    except ValueError:
        return None
    return found if found.tzinfo is not None else None
