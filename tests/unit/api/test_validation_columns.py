"""What is wrong with columns, target, split, slices and sources."""

import pytest

from tests.support.builders import ProjectBuilder, a_project
from tests.support.findings import a_multiclass_project, a_regression_project, assert_told

P = a_project()
FAULTS = {
    "a lever column without a lever": (
        P.with_column("coupon", role="Lever"),
        "spec.data.columns[11].role",
        "coupon spec.levers",
    ),
    "a column declared twice": (
        P.with_field("spec.data.columns[1].name", "visit_id"),
        "spec.data.columns[1].name",
        "visit_id twice",
    ),
    "a column named like a field of the request": (
        P.with_column("today"),
        "spec.data.columns[11].name",
        "today request",
    ),
    "a column whose minimum is above its maximum": (
        P.with_column("rival_price", minimum=9),
        "spec.data.columns[5].minimum",
        "above its maximum",
    ),
    "bounds on text": (P.with_column("store", minimum=1), "spec.data.columns[2].minimum", "String minimum"),
    "a time as a model input": (
        P.with_column("day", type="Timestamp"),
        "spec.data.columns[11].type",
        "time Uncontrolled weekday",
    ),
    "two propensities": (
        P.with_column("propensity2", role="Assignment"),
        "spec.data.columns",
        "Two Assignment",
    ),
    "a propensity that is no number": (
        P.with_column("propensity", type="String"),
        "spec.data.columns[9].type",
        "Float",
    ),
    "a derived column that reads what is known only afterwards": (
        P.with_column("basket", role="AfterAction").with_column("twice", role="Derived", expression="2 * basket"),
        "spec.data.columns[12].expression",
        "basket AfterAction leak",
    ),
    "a derived column that reads the target": (
        P.with_column("twice", role="Derived", expression="2 * purchase"),
        "spec.data.columns[11].expression",
        "purchase target",
    ),
    "a derived column that reads what is uncontrolled": (
        P.with_column("twice", role="Derived", expression="2 * week"),
        "spec.data.columns[11].expression",
        "week Uncontrolled Context",
    ),
    "a derived column that reads the propensity": (
        P.with_column("twice", role="Derived", expression="2 * propensity"),
        "spec.data.columns[11].expression",
        "propensity Assignment",
    ),
    "a derived column that reads an identifier": (
        P.with_column("twice", role="Derived", expression="2 * visit_id"),
        "spec.data.columns[11].expression",
        "visit_id Identifier",
    ),
    "a derived column that reads a later one": (
        P.with_column("twice", role="Derived", expression="2 * half").with_column(
            "half", role="Derived", expression="price / 2"
        ),
        "spec.data.columns[11].expression",
        "half before above",
    ),
    "a derived column that reads itself": (
        P.with_column("twice", role="Derived", expression="2 * twice"),
        "spec.data.columns[11].expression",
        "twice itself",
    ),
    "a derived column that is not finite": (
        P.with_column("ratio", role="Derived", expression="price / discount"),
        "spec.data.columns[11].expression",
        "divisor greatest",
    ),
    "a derived column of text": (
        P.with_column("twice", role="Derived", type="String", expression="2 * price"),
        "spec.data.columns[11].type",
        "number Float",
    ),
    "a target that is also a model input": (
        P.with_column("purchase", role="Context"),
        "spec.data.target.name",
        "purchase Context leak AfterAction",
    ),
    "a target of another type": (
        P.with_column("purchase", type="String"),
        "spec.data.target.type",
        "Binary String Boolean or Integer",
    ),
    "bounds of a binary target": (
        P.with_target(name="purchase", type="Binary", minimum=0),
        "spec.data.target.minimum",
        "Binary minimum Remove",
    ),
    "a class declared twice": (
        a_multiclass_project().with_field("spec.data.target.classes", ["CH", "MM", "CH"]),
        "spec.data.target.classes[2]",
        "CH twice",
    ),
    "target bounds in the wrong order": (
        a_regression_project().with_field("spec.data.target.minimum", 99),
        "spec.data.target.minimum",
        "below",
    ),
    "a split by an unknown column": (
        P.with_field("spec.data.split", {"strategy": "Group", "column": "weak"}),
        "spec.data.split.column",
        "weak Did you mean week",
    ),
    "a split by the time of a text": (
        P.with_field("spec.data.split", {"strategy": "Time", "column": "store"}),
        "spec.data.split.column",
        "store String Timestamp",
    ),
    "a split by a derived column": (
        P.with_field("spec.data.split", {"strategy": "Group", "column": "price_gap"}),
        "spec.data.split.column",
        "price_gap Derived source",
    ),
    "a slice that is no column": (P.with_field("spec.data.slices", ["shop"]), "spec.data.slices[0]", "shop columns"),
    "a slice twice": (P.with_field("spec.data.slices", ["store", "store"]), "spec.data.slices[1]", "store twice"),
    "a source declared twice": (
        P.with_field("spec.data.sources[1].name", "visits"),
        "spec.data.sources[1].name",
        "visits twice",
    ),
    "a source joined on an unknown column": (
        P.with_field("spec.data.sources[0].joinOn", "visitid"),
        "spec.data.sources[0].joinOn",
        "visitid visit_id",
    ),
    "a source joined on the outcome": (
        P.with_field("spec.data.sources[0].joinOn", "purchase"),
        "spec.data.sources[0].joinOn",
        "purchase AfterAction key",
    ),
    "a joined decision log": (
        P.with_field("spec.data.sources[1].joinOn", "visit_id"),
        "spec.data.sources[1].joinOn",
        "rows Remove",
    ),
    "nothing to join to": (
        P.with_field("spec.data.sources", [{**P.manifest["spec"]["data"]["sources"][0], "joinOn": "visit_id"}]),
        "spec.data.sources",
        "joined joinOn",
    ),
    "two decision logs": (
        P.with_field("spec.data.sources", [{"name": name, "format": "DecisionLog"} for name in "ab"]),
        "spec.data.sources[1].format",
        "one decision log",
    ),
    "a wanted column that is there already": (
        P.with_field("spec.data.toCollect", [{"name": "store", "why": "x", "how": "Import"}]),
        "spec.data.toCollect[0].name",
        "store columns already",
    ),
}


@pytest.mark.parametrize(("built", "field", "words"), FAULTS.values(), ids=[name.replace(" ", "-") for name in FAULTS])
def test_a_fault_of_the_data_is_named_with_field_cause_and_remedy(
    built: ProjectBuilder, field: str, words: str
) -> None:
    assert_told(built, field, words)
