"""What all resources share: the model base, metadata, conditions, CEL rules and printer columns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from drivetrain.api.errors import InvalidSpecError, Problem
from drivetrain.api.kinds import GROUP
from drivetrain.api.scalars import Text

VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"


_REMEDIES: Mapping[str, str] = {
    "extra_forbidden": "Remove it or correct its spelling.",
    "missing": "Add it.",
    "literal_error": "Write one of these.",
    "string_pattern_mismatch": "`kubectl explain` says how this field is written.",
    "string_too_long": "Shorten it.",
    "too_long": "Remove some.",
    "too_short": "Add what is missing.",
    **dict.fromkeys(("greater_than", "greater_than_equal", "less_than", "less_than_equal"), "Choose such a number."),
    **dict.fromkeys(("int_parsing", "int_type", "float_parsing", "float_type"), "Write a number without quotes."),
}
"""What to do about a fault of structure, by pydantic's type of it; rules of our own say it in their message."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A CEL rule that the API server checks at admission; `field_path` is relative to the model that carries it."""

    rule: str
    message: str
    field_path: str | None = None


@dataclass(frozen=True, slots=True)
class PrinterColumn:
    """A column of `kubectl get`; priority 1 shows it only with `-o wide`."""

    name: str
    json_path: str
    type: Literal["string", "integer", "number", "date", "boolean"] = "string"
    priority: int = 0
    description: str = ""


def name_rule(subject: str, limit: int) -> Rule:
    """What the name of a resource may be: children add to it, and Services take no other."""
    return Rule(
        f"self.metadata.name.size() <= {limit} && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        f"{subject} takes at most {limit} lower-case letters, digits and dashes, and starts with a letter",
        ".metadata.name",
    )


class ApiModel(BaseModel):
    """A piece of the contract: camelCase outside, frozen inside, unknown fields refused."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )
    cel: ClassVar[tuple[Rule, ...]] = ()


class OwnerReference(ApiModel):
    """Who owns an object: garbage collection deletes it after its owner."""

    model_config = ConfigDict(extra="ignore")
    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool | None = None
    block_owner_deletion: bool | None = None


class ObjectMeta(ApiModel):
    """The metadata that Drivetrain reads of any object."""

    model_config = ConfigDict(extra="ignore")
    name: str = ""
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    labels: Mapping[str, str] = Field(default_factory=dict)
    annotations: Mapping[str, str] = Field(default_factory=dict)
    owner_references: tuple[OwnerReference, ...] = ()
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None


class Condition(ApiModel):
    """One aspect of a resource's state, after the Kubernetes convention."""

    type: str = Field(max_length=64)
    """Which aspect."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    reason: str = Field(max_length=128, pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$")
    """Why, in one CamelCase word."""
    message: Text = ""
    """Why, and what to do, for people."""
    last_transition_time: datetime | None = None
    """When `status` last changed."""
    observed_generation: int = 0
    """The generation of the spec that this was seen with."""


class Resource(ApiModel):
    """An object of one of our kinds as the API server stores it."""

    model_config = ConfigDict(extra="ignore")
    kind: str
    api_version: str = API_VERSION
    metadata: ObjectMeta = Field(default_factory=ObjectMeta)

    plural: ClassVar[str]
    short_name: ClassVar[str]
    printer_columns: ClassVar[tuple[PrinterColumn, ...]] = ()
    selectable_fields: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def parse(cls, document: Mapping[str, object]) -> Self:
        """The typed resource, or InvalidSpecError naming each field that does not fit."""
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            raise InvalidSpecError(problems_of(error, document)) from error


def problems_of(error: ValidationError, document: object) -> tuple[Problem, ...]:
    """The field problems inside a ValidationError of `document`, paths as in a manifest (`spec.levers[1].step`)."""
    problems: dict[str, Problem] = {}
    details = error.errors(include_url=False)
    for detail in sorted(details, key=lambda detail: detail["type"] == "too_short"):
        path = _path(detail["loc"], document, missing=detail["type"] == "missing")
        if detail["type"] == "too_short" and any(found.startswith(f"{path}[") for found in problems):
            continue  # items that are wrong themselves were not counted
        cause = detail["msg"].removeprefix("Value error, ") + "."
        problem = Problem(field=path, cause=cause, remedy=_REMEDIES.get(detail["type"], ""))
        problems.setdefault(path, problem)  # a union reports each of its members; the first says what was meant
    return tuple(problems.values())


def _path(location: Sequence[int | str], document: object, *, missing: bool) -> str:
    """The part of `location` that lies in the document: pydantic adds names of union members and marks of keys."""
    path, at = "", document
    for part in location:
        if isinstance(at, Sequence) and not isinstance(at, str) and isinstance(part, int) and part < len(at):
            path, at = f"{path}[{part}]", at[part]
        elif isinstance(at, Mapping) and (part in at or missing):
            path, at = f"{path}.{part}" if path else str(part), at.get(part)
        else:
            break
    return path


def condition_of(conditions: tuple[Condition, ...], type_: str) -> Condition | None:
    """The condition of that type, if any."""
    return next((condition for condition in conditions if condition.type == type_), None)


def with_transitions(
    before: tuple[Condition, ...], after: tuple[Condition, ...], *, now: datetime, generation: int
) -> tuple[Condition, ...]:
    """`after` with transition times: kept from `before` where the status is the same, else `now`."""
    result = []
    for condition in after:
        old = condition_of(before, condition.type)
        since = old.last_transition_time if old is not None and old.status == condition.status else now
        result.append(
            condition.model_copy(update={"last_transition_time": since or now, "observed_generation": generation})
        )
    return tuple(sorted(result, key=lambda condition: condition.type))
