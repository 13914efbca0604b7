"""What is wrong with levers, each with its field, its cause and a remedy."""

import pytest

from tests.support.builders import ProjectBuilder, a_project
from tests.support.findings import a_multiclass_project, assert_told

P = a_project()
FAULTS = {
    "a lever that is not in the columns": (P.without_column("price"), "spec.levers[0].name", "price data.columns"),
    "a lever whose column has another role": (
        P.with_column("price", role="Context"),
        "spec.levers[0].name",
        "Context role Lever",
    ),
    "a lever whose minimum is above its maximum": (
        P.with_lever("price", minimum="3"),
        "spec.levers[0].minimum",
        "3 > 2.09",
    ),
    "a step that does not fit": (
        P.with_lever("price", step="0.06"),
        "spec.levers[0].step",
        "0.06 2.09 2.05 or 2.11",
    ),
    "a step of zero": (P.with_lever("price", step="0"), "spec.levers[0].step", "above 0"),
    "a lever with too many values": (
        P.with_lever("price", step="0.00001"),
        "spec.levers[0].step",
        "40001 10000 larger",
    ),
    "an integer lever with a fraction": (
        P.with_lever("price", type="Integer"),
        "spec.levers[0].minimum",
        "1.69 whole Continuous",
    ),
    "a lever beyond its column's bounds": (
        P.with_column("price", minimum=1.5, maximum=2.0),
        "spec.levers[0].maximum",
        "2.09 2 column",
    ),
    "a continuous lever on a text column": (
        P.with_column("price", type="String"),
        "spec.levers[0].type",
        "Continuous String Float",
    ),
    "a lever declared twice": (
        P.with_field("spec.levers", [*P.manifest["spec"]["levers"], P.manifest["spec"]["levers"][0]]),
        "spec.levers[2].name",
        "price twice",
    ),
    "a choice declared twice": (
        P.with_lever("offer", type="Categorical", choices=["none", "mail", "none"]),
        "spec.levers[2].choices[2]",
        "none twice",
    ),
    "a lever named like a keyword": (P.with_lever("case"), "spec.levers[2].name", "case expression"),
    "a direction on a multiclass target": (
        a_multiclass_project().with_lever("price", effect="Decreasing"),
        "spec.levers[0].effect",
        "Multiclass direction",
    ),
    "a number without quotes where it must be exact": (
        P.with_lever("price", minimum=1.69),
        "spec.levers[0].minimum",
        "1.69 quotes",
    ),
}


@pytest.mark.parametrize(("built", "field", "words"), FAULTS.values(), ids=[name.replace(" ", "-") for name in FAULTS])
def test_a_fault_of_levers_is_named_with_field_cause_and_remedy(built: ProjectBuilder, field: str, words: str) -> None:
    assert_told(built, field, words)
