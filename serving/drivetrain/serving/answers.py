"""What callers read: decided batches and simulated settings as JSON."""

from collections.abc import Mapping, Sequence

import numpy as np
import orjson

from drivetrain.api.policy import Policy
from drivetrain.levers.grid import Booleans, Column, Floats
from drivetrain.serving.contract import declared_bounds
from drivetrain.serving.decisions import Decisions
from drivetrain.serving.graph import out_of_domain
from drivetrain.serving.loader import Variant
from drivetrain.serving.rows import RowProblem, Rows, RowsError, objects
from drivetrain.serving.view import Serving

_NUMPY = orjson.OPT_SERIALIZE_NUMPY
SIMULATION_LIMIT = 200_000
"""Rows times settings that one call may value."""


def decided(decisions: Decisions, ids: Sequence[str]) -> bytes:
    """The answer of /v1/decide: one object a row, in the order of the request. Unknown numbers are null."""
    names = tuple(decisions.actions)
    values = [column.tolist() for column in decisions.actions.values()]
    known = ~np.isnan(decisions.radius)
    lower = np.where(known, decisions.expected_value - decisions.radius, decisions.single[0]).tolist()
    upper = np.where(known, decisions.expected_value + decisions.radius, decisions.single[1]).tolist()
    expected, explored = decisions.expected_value.tolist(), decisions.explored.tolist()
    serving = decisions.serving
    versions = {
        variant.hash: variant.policy.model.version if variant.policy.model else None
        for variant in (serving.stable, serving.candidate, serving.baseline)
        if variant is not None
    }
    rows = []
    for row, decision_id in enumerate(ids):
        refused = bool(decisions.refused[row])
        rows.append(
            {
                "decisionId": decision_id,
                "action": None if refused else {name: values[lever][row] for lever, name in enumerate(names)},
                "interval": {
                    "lower": lower[row],
                    "upper": upper[row],
                    "covers": "mean" if known[row] else "outcome",
                },
                "expectedValue": expected[row],  # orjson writes NaN as null
                "explored": explored[row],
                "bindingConstraints": decisions.binding[row],
                "shadowPrice": decisions.shadow_prices[row],
                "variant": decisions.arms[row],
                "policy": decisions.policies[row],
                "modelVersion": versions[decisions.policies[row]],
                "fallback": decisions.fallback[row] or None,
                "outOfDomain": decisions.outside[row],
            }
        )
    ignored = decisions.rows.ignored
    return orjson.dumps({"rows": rows, "ignoredFields": ignored} if ignored else {"rows": rows})


def simulated(rows: Rows, documents: object, serving: Serving, *, candidate: bool) -> bytes:
    """The answer of /v1/simulate: what each row's KPI would be under each of the given lever settings.

    Raises RowsError for settings that are none, and for a policy without a model.
    """
    variant = serving.candidate if candidate else serving.stable
    if variant is None or variant.graph is None:
        which = "no candidate is rolled out" if candidate else "today's policy has no model"
        raise RowsError([RowProblem(0, "policy", f"cannot simulate: {which}.")])
    columns = rows.columns
    for name in variant.graph.context:
        if name not in columns:
            raise RowsError([RowProblem(0, name, "is missing: this policy's model needs it.")])
    settings = lever_settings(documents, variant.policy, rows.count)
    count = len(next(iter(settings.values())))
    row, setting = np.divmod(np.arange(rows.count * count), count)
    context = {name: column[row] for name, column in columns.items()}
    action = {name: column[setting] for name, column in settings.items()}
    predicted = variant.graph.predict({**context, **action}).value
    valuation = variant.valuation
    value = np.broadcast_to(valuation.value(predicted, context, action), (len(row),))
    feasible: Booleans = np.ones(len(row), dtype=bool)
    for bound, margin in zip(valuation.bounds, valuation.margins(context, action), strict=True):
        feasible &= bound.holds(np.broadcast_to(margin, (len(row),)))
    outside = outside_of(variant, rows, serving)
    shape = (rows.count, count)
    return orjson.dumps(
        {
            "policy": variant.hash,
            "rows": [
                {"expectedValue": values, "prediction": predictions, "feasible": holds, "outOfDomain": names}
                for values, predictions, holds, names in zip(
                    value.reshape(shape).tolist(),
                    predicted.reshape(*shape, *predicted.shape[1:]).tolist(),
                    feasible.reshape(shape).tolist(),
                    outside,
                    strict=True,
                )
            ],
        },
        option=_NUMPY,
    )


def outside_of(variant: Variant, rows: Rows, serving: Serving) -> list[list[str]]:
    """The fields of each row that lie outside the variant's model's domain."""
    assert variant.graph is not None
    where = out_of_domain(
        variant.graph.contract,
        rows.columns,
        declared_bounds(variant.policy.columns),
        serving.config.monitoring.out_of_domain,
    )
    return [[name for name, outside in where.items() if outside[row]] for row in range(rows.count)]


def lever_settings(documents: object, policy: Policy, rows: int) -> dict[str, Column]:
    """Lever to its value in each setting. Raises RowsError naming the setting that does not fit the levers."""
    if not isinstance(documents, list) or not documents:
        raise RowsError([RowProblem(0, "actions", "must be a list of at least one lever setting.")])
    if len(documents) * rows > SIMULATION_LIMIT:
        raise RowsError([RowProblem(0, "actions", f"times rows exceeds {SIMULATION_LIMIT}.")])
    names = {lever.name for lever in policy.levers}
    columns: dict[str, list[object]] = {name: [] for name in names}
    for number, document in enumerate(documents):
        if not isinstance(document, Mapping) or set(document) != names:
            raise RowsError([RowProblem(number, "actions", f"must set each of {', '.join(sorted(names))}.")])
        for lever in policy.levers:
            value = document[lever.name]
            text = lever.type == "Categorical"
            if not (value in lever.choices if text else type(value) in (int, float)):
                wanted = f"one of {', '.join(lever.choices)}" if text else "a number"
                raise RowsError([RowProblem(number, f"actions.{lever.name}", f"must be {wanted}.")])
            columns[lever.name].append(value)
    return {
        lever.name: objects(columns[lever.name]) if lever.type == "Categorical" else _numbers(columns[lever.name])
        for lever in policy.levers
    }


def _numbers(values: Sequence[object]) -> Floats:
    return np.array(values, dtype=np.float64)
