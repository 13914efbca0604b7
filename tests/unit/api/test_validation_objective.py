"""What is wrong with an objective: value, bounds of the KPI, baseline, constraints."""

import pytest

from tests.support.builders import ProjectBuilder, a_project
from tests.support.findings import a_multiclass_project, assert_told

OBJECTIVE = "spec.objective"
P = a_project()
FAULTS = {
    "a value that cannot be parsed": (P.with_value("purchase *"), f"{OBJECTIVE}.value", "ends position 10"),
    "a value that names an unknown column": (
        P.with_value("purchase * (prize - 1.1)"),
        f"{OBJECTIVE}.value",
        "prize mean price",
    ),
    "a value that aggregates": (P.with_value("sum(purchase)"), f"{OBJECTIVE}.value", "sum aggregate one row"),
    "a value that is not finite over the bounds": (
        P.with_value("purchase * price / discount"),
        f"{OBJECTIVE}.value",
        "divisor 0 to 0.5 greatest",
    ),
    "a value that uses what is known only afterwards": (
        P.with_column("basket", role="AfterAction").with_value("purchase * price + basket"),
        f"{OBJECTIVE}.value",
        "basket AfterAction leak",
    ),
    "a value that uses a derived column": (
        P.with_value("purchase * price_gap"),
        f"{OBJECTIVE}.value",
        "price_gap Derived Write its expression",
    ),
    "a value that uses text as a number": (P.with_value("purchase * store"), f"{OBJECTIVE}.value", "store text"),
    "a value that is not affine in the target": (
        P.with_value("purchase * purchase * price"),
        f"{OBJECTIVE}.value",
        "affine purchase mean",
    ),
    "a value that compares with an unknown class": (
        a_multiclass_project().with_value("(brand = 'CHH') * price"),
        f"{OBJECTIVE}.value",
        "CHH Did you mean 'CH'",
    ),
    "KPI bounds that do not contain what the value can give": (
        P.with_field(f"{OBJECTIVE}.kpi.maximum", "0.9"),
        f"{OBJECTIVE}.kpi.maximum",
        "0.99 beyond 0.9 Widen",
    ),
    "KPI bounds beside a column without bounds": (
        P.with_value("purchase * (price - rival_cost)").with_column("rival_cost"),
        f"{OBJECTIVE}.kpi.minimum",
        "-inf rival_cost bounded",
    ),
    "KPI bounds that leave out the zero of a missing outcome": (
        P.with_value("purchase * price + 1")
        .with_field(f"{OBJECTIVE}.kpi.minimum", "0.5")
        .with_field(f"{OBJECTIVE}.kpi.maximum", "4"),
        f"{OBJECTIVE}.kpi.minimum",
        "reach 0 0.5",
    ),
    "KPI bounds that leave out today's policy": (
        P.with_column("shelf_price", maximum=3),
        f"{OBJECTIVE}.kpi.maximum",
        "reach 1.9 beyond 1.0",
    ),
    "KPI bounds in the wrong order": (
        P.with_field(f"{OBJECTIVE}.kpi.minimum", "2"),
        f"{OBJECTIVE}.kpi.minimum",
        "below kpi.maximum",
    ),
    "a baseline that leaves out a lever": (
        P.without_field(f"{OBJECTIVE}.baseline.expression.price"),
        f"{OBJECTIVE}.baseline.expression",
        "price not set",
    ),
    "a baseline that names an unknown lever": (
        P.with_field(f"{OBJECTIVE}.baseline.expression.prices", "2"),
        f"{OBJECTIVE}.baseline.expression.prices",
        "prices Did you mean price",
    ),
    "a baseline that reads a lever": (
        P.with_field(f"{OBJECTIVE}.baseline.expression.price", "discount + 2"),
        f"{OBJECTIVE}.baseline.expression.price",
        "discount lever before",
    ),
    "a baseline that reads the target": (
        P.with_field(f"{OBJECTIVE}.baseline.expression.price", "purchase + 2"),
        f"{OBJECTIVE}.baseline.expression.price",
        "purchase target",
    ),
    "a baseline that is no number": (
        P.with_field(f"{OBJECTIVE}.baseline", {"action": {"price": "dear", "discount": "0"}}),
        f"{OBJECTIVE}.baseline.action.price",
        "dear number",
    ),
    "a baseline that is no choice": (
        P.with_lever("offer", type="Categorical", choices=["none", "mail"]).with_field(
            f"{OBJECTIVE}.baseline.action.offer", "mial"
        ),
        f"{OBJECTIVE}.baseline.action.offer",
        "mial choice mail",
    ),
    "a baseline that computes a choice": (
        P.with_lever("offer", type="Categorical", choices=["none", "mail"]).with_field(
            f"{OBJECTIVE}.baseline", {"expression": {"price": "2", "discount": "0", "offer": "store"}}
        ),
        f"{OBJECTIVE}.baseline.expression.offer",
        "Categorical baseline.action",
    ),
    "a unit that callers do not send": (
        P.with_field(f"{OBJECTIVE}.unit", "week"),
        f"{OBJECTIVE}.unit",
        "week Uncontrolled Identifier",
    ),
    "a metric of another target type": (
        P.with_field(f"{OBJECTIVE}.modelMetric.name", "rmse"),
        f"{OBJECTIVE}.modelMetric.name",
        "Binary rmse logLoss",
    ),
    "a metric in the wrong direction": (
        P.with_field(f"{OBJECTIVE}.modelMetric.direction", "Maximize"),
        f"{OBJECTIVE}.modelMetric.direction",
        "logLoss Minimize",
    ),
    "a constraint that is a number": (
        P.with_constraint("price - discount"),
        f"{OBJECTIVE}.constraints[1].expression",
        "condition Compare",
    ),
    "a constraint on the target": (
        P.with_constraint("purchase >= 0"),
        f"{OBJECTIVE}.constraints[1].expression",
        "purchase target",
    ),
    "a constraint on an identifier": (
        P.with_constraint("visit_id = 'x'"),
        f"{OBJECTIVE}.constraints[1].expression",
        "visit_id Identifier",
    ),
    "a constraint on a time": (
        P.with_column("day", type="Timestamp").with_constraint("day > 0"),
        f"{OBJECTIVE}.constraints[1].expression",
        "day Timestamp",
    ),
    "a constraint that no action satisfies": (
        P.with_constraint("price - discount >= 2.1"),
        f"{OBJECTIVE}.constraints[1].expression",
        "No action Loosen",
    ),
    "a portfolio constraint on something that is not predicted": (
        P.with_portfolio("visits", minimum=1),
        f"{OBJECTIVE}.constraints[1].metric",
        "visits purchase",
    ),
    "a portfolio constraint on classes": (
        a_multiclass_project().with_portfolio("brand", minimum=1),
        f"{OBJECTIVE}.constraints[1].metric",
        "brand classes",
    ),
    "a portfolio constraint in the wrong order": (
        P.with_portfolio("purchase", minimum=0.5, maximum=0.4),
        f"{OBJECTIVE}.constraints[1].minimum",
        "above",
    ),
    "a portfolio minimum that no candidate can reach": (
        P.with_portfolio("purchase", minimum=1.2),
        f"{OBJECTIVE}.constraints[1].minimum",
        "purchase exceed Lower",
    ),
    "a portfolio maximum below all that is possible": (
        P.with_portfolio("purchase", maximum=-0.1),
        f"{OBJECTIVE}.constraints[1].maximum",
        "purchase below Raise",
    ),
    "a required field that is missing": (
        P.without_field("spec.objective.kpi.name"),
        "spec.objective.kpi.name",
        "required",
    ),
}


@pytest.mark.parametrize(("built", "field", "words"), FAULTS.values(), ids=[name.replace(" ", "-") for name in FAULTS])
def test_a_fault_of_an_objective_is_named_with_field_cause_and_remedy(
    built: ProjectBuilder, field: str, words: str
) -> None:
    assert_told(built, field, words)
