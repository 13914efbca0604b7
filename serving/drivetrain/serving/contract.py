"""What a request must carry, from the contracts of the policies that serve."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

import numpy as np

from drivetrain.api import expression
from drivetrain.api.model import ModelContract
from drivetrain.api.policy import Policy
from drivetrain.api.v1alpha1.dataset import Column as DeclaredColumn
from drivetrain.api.v1alpha1.lever import Lever
from drivetrain.levers.grid import Booleans, Column
from drivetrain.serving.rows import (
    PROBLEM_LIMIT,
    TODAY,
    Field,
    RowProblem,
    Rows,
    RowsError,
    documents_of,
    lever_column,
    missing,
    typed_column,
    unit_of,
)

_REFUSED_ROLES: Final = {
    "Lever": "is a lever; the endpoint sets it. Send today's action under 'today'.",
    "Derived": "is derived; the endpoint computes it.",
    "AfterAction": "is only known after the action; report it to /v1/outcomes.",
    "Assignment": "is logged by the endpoint itself.",
}


@dataclass(frozen=True, slots=True)
class RequestContract:
    """Fields by name, the levers of `today`, and what only the candidate needs."""

    fields: Mapping[str, Field]
    refused: Mapping[str, str]
    """Known columns that a request must not carry, and why."""
    levers: tuple[Lever, ...]
    unit: str | None
    needs_today: bool
    candidate_only: tuple[str, ...]

    def rows(self, rows: object) -> Rows:
        """Types a batch of JSON rows. Raises RowsError naming rows and fields (at most 20 problems).

        A field that no policy knows is ignored and named in the answer: refusing it would turn the end of a rollout
        into an outage, since callers go on sending the columns that only the rejected candidate knew.
        """
        documents = documents_of(rows)
        problems: list[RowProblem] = []
        unknown = set(chain.from_iterable(documents)) - self.fields.keys() - {TODAY}
        for name in sorted(unknown & self.refused.keys()):
            row = next(index for index, document in enumerate(documents) if name in document)
            problems.append(RowProblem(row, name, self.refused[name]))
        columns: dict[str, Column] = {}
        for field in self.fields.values():
            column = typed_column(field, documents, problems)
            if column is not None:
                columns[field.name] = column
        today, sent = self._today(documents, problems)
        units = None
        if self.unit is not None and not problems:
            units = tuple(unit_of(document[self.unit]) for document in documents)
        if problems:
            problems.sort(key=lambda problem: problem.row)
            raise RowsError(problems[:PROBLEM_LIMIT])
        return Rows(
            count=len(documents),
            columns=columns,
            units=units,
            today=today,
            sent_today=sent,
            complete_for_candidate=self._complete(columns, len(documents)),
            ignored=tuple(sorted(unknown)),
        )

    def _complete(self, columns: Mapping[str, Column], count: int) -> Booleans:
        complete = np.ones(count, dtype=bool)
        for name in self.candidate_only:
            if name not in columns:
                return np.zeros(count, dtype=bool)
            if not self.fields[name].nullable:
                complete &= ~missing(columns[name])
        return complete

    def _today(
        self, documents: Sequence[Mapping[str, object]], problems: list[RowProblem]
    ) -> tuple[dict[str, Column], Booleans]:
        sent = np.array([document.get(TODAY) is not None for document in documents], dtype=bool)
        if self.needs_today and not sent.all():
            problems.append(RowProblem(int(np.argmin(sent)), TODAY, "is missing; today's policy is only known by it."))
        if not sent.any() or problems:
            return {}, sent
        names = {lever.name for lever in self.levers}
        actions: list[Mapping[str, object]] = []
        for index in np.flatnonzero(sent).tolist():
            action = documents[index][TODAY]
            if not isinstance(action, dict) or set(action) != names:
                wanted = ", ".join(sorted(names))
                problems.append(RowProblem(index, TODAY, f"must map each lever ({wanted}) to a value."))
                return {}, sent
            actions.append(action)
        return {lever.name: lever_column(lever, actions, sent, problems) for lever in self.levers}, sent


def contract_of(
    stable: Policy,
    stable_model: ModelContract | None,
    baseline: Policy,
    candidate: Policy | None = None,
    candidate_model: ModelContract | None = None,
) -> RequestContract:
    """Required: what stable (its model, value, constraints), today's policy and the unit need.

    What only the candidate needs stays optional. Other columns of the project that are known when deciding, and slices,
    are logged when sent; what is derived, set or only known later is refused.
    """
    needed = _needed(stable, stable_model) | _baseline_names(baseline)
    unit = stable.objective.unit
    if unit is not None:
        needed.add(unit)
    wanted = _needed(candidate, candidate_model) if candidate is not None else set()
    declared = {column.name: column for column in (*(candidate.columns if candidate else ()), *stable.columns)}
    inputs = {column.name: column for model in (candidate_model, stable_model) if model for column in model.inputs}
    fields = {}
    refused = {}
    for name in dict.fromkeys((*declared, *inputs, *sorted(needed | wanted))):
        column = declared.get(name)
        if column is not None and column.role in _REFUSED_ROLES and name not in needed:
            refused[name] = _REFUSED_ROLES[column.role]
            continue
        model_input = inputs.get(name)
        if model_input is not None and model_input.role == "Lever":
            continue
        if column is None and model_input is None and name != unit:
            continue
        # A model decides whether a null may come where it reads the column; the project's contract decides elsewhere.
        nullable = column.nullable if column is not None else False
        if model_input is not None:
            nullable = model_input.nullable
        fields[name] = Field(
            name=name,
            type=model_input.type if model_input is not None else column.type if column is not None else "String",
            nullable=nullable and name != unit,
            required=name in needed,
            why=_why(name, needed, wanted, unit),
        )
    return RequestContract(
        fields=fields,
        refused=refused,
        levers=stable.levers,
        unit=unit,
        needs_today=bool(baseline.objective.baseline.logged),
        candidate_only=tuple(sorted((wanted - needed) & fields.keys())),
    )


def _needed(policy: Policy, model: ModelContract | None) -> set[str]:
    texts = [policy.objective.value]
    texts += [constraint.expression for constraint in policy.objective.constraints if constraint.expression]
    names = set(chain.from_iterable(expression.parse(text).names for text in texts))
    if model is not None:
        names |= {column.name for column in model.inputs if column.role == "Context"}
    return _known_when_deciding(names, policy)


def _baseline_names(policy: Policy) -> set[str]:
    written = (policy.objective.baseline.expression or {}).values()
    return _known_when_deciding(set(chain.from_iterable(expression.parse(text).names for text in written)), policy)


def _known_when_deciding(names: set[str], policy: Policy) -> set[str]:
    """`names` without target and levers, Derived ones replaced by what they are computed from."""
    declared = {column.name: column for column in policy.columns}
    levers = {lever.name for lever in policy.levers}
    result: set[str] = set()
    open_names = [name for name in names if name != policy.target.name and name not in levers]
    while open_names:
        name = open_names.pop()
        column = declared.get(name)
        if column is not None and column.role == "Derived" and column.expression is not None:
            open_names += [
                inner for inner in expression.parse(column.expression).names if inner not in levers and inner != name
            ]
        else:
            result.add(name)
    return result


def _why(name: str, needed: set[str], wanted: set[str], unit: str | None) -> str:
    if name == unit:
        return "the randomisation unit"
    if name in needed:
        return "the serving policy needs it"
    return (
        "the candidate needs it; rows without it stay out of the comparison" if name in wanted else "logged when sent"
    )


def declared_bounds(columns: Iterable[DeclaredColumn]) -> dict[str, tuple[float | None, float | None]]:
    """Column to its declared bounds, where it has any."""
    return {
        column.name: (column.minimum, column.maximum)
        for column in columns
        if column.minimum is not None or column.maximum is not None
    }
