"""What a manifest alone shows to be wrong, each with its field, its cause and a remedy."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivetrain.api.reach import kpi_bounds
from drivetrain.api.validation import validate_deployment, validate_run
from tests.support.admission_cases import CASES, Case
from tests.support.builders import ProjectBuilder, a_deployment, a_project, a_run
from tests.support.findings import a_multiclass_project, a_regression_project, assert_told, problems


def a_logged_project() -> ProjectBuilder:
    return a_project().with_field("spec.objective.baseline", {"logged": True})


@pytest.mark.parametrize(
    "project",
    [
        pytest.param(a_project(), id="binary-target-and-computed-baseline"),
        pytest.param(a_multiclass_project(), id="multiclass-target"),
        pytest.param(a_regression_project(), id="regression-target"),
        pytest.param(
            a_project().with_lever("offer", type="Categorical", choices=["none", "mail"]),
            id="categorical-lever-and-fixed-baseline",
        ),
        pytest.param(
            a_logged_project().without_field("spec.objective.kpi.minimum").without_field("spec.objective.kpi.maximum"),
            id="logged-baseline-without-kpi-bounds",
        ),
        pytest.param(
            a_project().with_field(
                "spec.serving.rollout.analysis.metrics",
                [{"name": "fallbackRate", "better": "Lower"}, {"name": "purchase", "better": "Higher"}],
            ),
            id="guardrails-on-rates",
        ),
        pytest.param(
            a_project().with_candidate("boosted", "LightGBM", search={"num_leaves": {"choices": [7, 15]}}),
            id="searched-candidate",
        ),
        pytest.param(a_project().without_serving(), id="served-by-somebody-else"),
    ],
)
def test_a_project_that_can_be_built_has_no_problems(project: ProjectBuilder) -> None:
    assert problems(project.document()) == ()


@pytest.mark.parametrize("case", CASES, ids=[case.message for case in CASES])
def test_validation_offline_agrees_with_admission(case: Case) -> None:
    assert problems(case.accepted) == ()
    found = problems(case.rejected)
    assert any(case.message in problem.cause for problem in found), found
    field = case.field.replace("[C]", ".C")
    places = (field, field.rpartition(".")[0])  # pydantic names the object of which a rule speaks
    assert any(problem.field in places for problem in found), found


ANALYSIS = "spec.serving.rollout.analysis"


P = a_project()
FAULTS = {
    "a project's name that is too long": (P.named("a" * 31), "metadata.name", "31 30"),
    "a project's name in capitals": (P.named("Shop"), "metadata.name", "lower-case"),
    "a field that does not exist": (P.with_field("spec.leverz", []), "spec.leverz", "not permitted spelling"),
}


@pytest.mark.parametrize(("built", "field", "words"), FAULTS.values(), ids=[name.replace(" ", "-") for name in FAULTS])
def test_a_fault_of_a_manifest_is_named_with_field_cause_and_remedy(
    built: ProjectBuilder, field: str, words: str
) -> None:
    assert_told(built, field, words)


def leaves(value: object, path: str) -> list[str]:
    """Paths of everything in a manifest below `path`."""
    if isinstance(value, dict):
        return [path, *(leaf for key, child in value.items() for leaf in leaves(child, f"{path}.{key}"))]
    if isinstance(value, list):
        return [path, *(leaf for index, child in enumerate(value) for leaf in leaves(child, f"{path}[{index}]"))]
    return [path]


RICH = (
    a_project()
    .with_lever("offer", type="Categorical", choices=["none", "mail"])
    .with_candidate("boosted", "LightGBM", search={"num_leaves": {"minimum": 3, "maximum": 9, "type": "Integer"}})
    .with_portfolio("purchase", minimum=0.4)
    .with_field("spec.training.evaluation.gates", [{"metric": "rocAuc", "threshold": 0.6, "slice": "store"}])
    .with_field(f"{ANALYSIS}.metrics", [{"name": "purchase", "better": "Higher", "tolerance": 0.1}])
)
JUNK: tuple[object, ...] = (
    None,
    "",
    "x",
    "price",
    "1",
    "-1",
    0,
    -1,
    1.5,
    10**9,
    True,
    [],
    {},
    ["price"],
    {"price": "1"},
    "price / 0",
)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(leaves(RICH.manifest["spec"], "spec")[1:]), st.sampled_from(JUNK)), max_size=3)
)
def test_whatever_is_written_gets_an_answer_and_clean_paths(changes: list[tuple[str, object]]) -> None:
    built = RICH
    for path, value in changes:
        try:
            built = built.with_field(path, value)
        except (KeyError, IndexError, TypeError, AttributeError):
            continue  # an earlier change removed the place
    for problem in problems(built.document()):
        assert re.fullmatch(r"(metadata\.name|spec(\.\w+|\[\d+\])*)", problem.field), problem
        assert problem.cause.endswith("."), problem


def test_a_run_and_a_deployment_are_checked_without_their_project_as_far_as_that_goes() -> None:
    assert validate_run(a_run().build()) == ()
    assert validate_deployment(a_deployment().build()) == ()
    broken = a_run().with_field("spec.candidates[0].parameters", {"depth": 1}).build()
    assert [problem.field for problem in validate_run(broken)] == ["spec.candidates[0].parameters.depth"]


def test_a_changed_spec_of_a_run_is_named_field_by_field() -> None:
    created = a_run().build().spec
    changed = (
        a_run()
        .with_field("spec.attempts", 5)
        .with_field("spec.candidates[0].parameters", {"C": 2})
        .with_field("spec.suspend", True)
        .with_field("spec.deadline", "1h")
        .with_field("spec.ttlAfterFinished", "1d")
    )
    found = validate_run(changed.build(), created=created)
    assert [problem.field for problem in found] == ["spec.candidates", "spec.attempts"]
    assert all("immutable" in problem.cause and "another run" in problem.remedy for problem in found)
    assert validate_run(a_run().build(), created=created) == ()


def test_undeclared_kpi_bounds_are_the_derived_ones() -> None:
    spec = a_regression_project().build().spec
    reached = kpi_bounds(spec.objective, spec.levers, spec.data.columns, spec.data.target)
    assert [reached.low, reached.high] == pytest.approx([0, 50 * 0.99])


def test_declared_kpi_bounds_win_and_undeclared_ones_may_be_infinite() -> None:
    spec = a_regression_project().with_target(name="sales", type="Regression", minimum=0).build().spec
    reached = kpi_bounds(spec.objective, spec.levers, spec.data.columns, spec.data.target)
    assert (reached.low, reached.finite) == (0, False)
    spec = a_project().build().spec
    reached = kpi_bounds(spec.objective, spec.levers, spec.data.columns, spec.data.target)
    assert (reached.low, reached.high) == (-0.2, 1.0)
