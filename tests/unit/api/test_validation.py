"""What a manifest alone shows to be wrong, each with its field, its cause and a remedy."""

import re
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivetrain.api.errors import InvalidSpecError, Problem
from drivetrain.api.reach import kpi_bounds
from drivetrain.api.v1alpha1.deployment import Deployment
from drivetrain.api.v1alpha1.project import DrivetrainProject
from drivetrain.api.v1alpha1.trainingrun import TrainingRun
from drivetrain.api.validation import validate_deployment, validate_project, validate_run
from tests.support.admission_cases import CASES, Case
from tests.support.builders import Manifest, ProjectBuilder, a_deployment, a_project, a_run

BRAND = {"name": "brand", "type": "Multiclass", "classes": ["CH", "MM", "none"]}
SALES = {"name": "sales", "type": "Regression", "minimum": 0, "maximum": 50}


def a_multiclass_project() -> ProjectBuilder:
    return (
        a_project()
        .with_target(**BRAND)
        .with_value("(brand = 'CH') * (price - discount - 1.1)")
        .with_lever("price", effect="Unknown")
        .with_lever("discount", effect="Unknown")
    )


def a_regression_project() -> ProjectBuilder:
    return (
        a_project()
        .with_target(**SALES)
        .with_value("sales * (price - discount - 1.1)")
        .with_field("spec.objective.kpi", {"name": "margin", "unit": "USD"})
        .with_field("spec.objective.modelMetric", {"name": "rmse", "direction": "Minimize"})
        .with_field("spec.training.candidates", [{"name": "linear", "estimator": "LinearRegression"}])
    )


def a_logged_project() -> ProjectBuilder:
    return a_project().with_field("spec.objective.baseline", {"logged": True})


def problems(manifest: Manifest) -> tuple[Problem, ...]:
    """What `drivetrain validate` says of one document."""
    try:
        match manifest["kind"]:
            case "TrainingRun":
                return validate_run(TrainingRun.parse(manifest), a_project().build())
            case "Deployment":
                return validate_deployment(Deployment.parse(manifest), a_project().build())
        return validate_project(DrivetrainProject.parse(manifest))
    except InvalidSpecError as error:
        return error.problems


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


@dataclass(frozen=True)
class Wrong:
    """A manifest, the field that is wrong, and words of the message."""

    manifest: Manifest
    field: str
    words: str


OBJECTIVE = "spec.objective"
CANDIDATE = "spec.training.candidates[0]"
ANALYSIS = "spec.serving.rollout.analysis"
P = a_project()
PROJECTS = {
    "a lever that is not in the columns": (P.without_column("price"), "spec.levers[0].name", "price data.columns"),
    "a lever whose column has another role": (
        P.with_column("price", role="Context"),
        "spec.levers[0].name",
        "Context role Lever",
    ),
    "a lever column without a lever": (
        P.with_column("coupon", role="Lever"),
        "spec.data.columns[11].role",
        "coupon spec.levers",
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
    "a GPU endpoint": (
        P.with_field("spec.decisions.environment.accelerator", "GPU"),
        "spec.decisions.environment.accelerator",
        "CPUs None",
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
    "an unknown estimator": (P.with_field(f"{CANDIDATE}.estimator", "CatBoost"), f"{CANDIDATE}.estimator", "XGBoost"),
    "an estimator that was not tested for the target": (
        P.with_field(f"{CANDIDATE}.estimator", "LinearRegression"),
        f"{CANDIDATE}.estimator",
        "LinearRegression Binary LogisticRegression",
    ),
    "a parameter that was not tested": (
        P.with_field(f"{CANDIDATE}.parameters", {"CC": 1}),
        f"{CANDIDATE}.parameters.CC",
        "CC tested C",
    ),
    "a searched parameter that was not tested": (
        P.with_field(f"{CANDIDATE}.search", {"depth": {"choices": [1, 2]}}),
        f"{CANDIDATE}.search.depth",
        "depth tested",
    ),
    "a switch that is a number": (
        P.with_field(f"{CANDIDATE}.estimator", "LightGBM").with_field(f"{CANDIDATE}.parameters", {"extra_trees": 1}),
        f"{CANDIDATE}.parameters.extra_trees",
        "neither true nor false",
    ),
    "a parameter that is text": (
        P.with_field(f"{CANDIDATE}.parameters", {"C": "1"}),
        f"{CANDIDATE}.parameters.C",
        "'1' number quotes",
    ),
    "a grid over a range": (
        P.with_field("spec.training.tuning", {"algorithm": "Grid"}).with_field(
            f"{CANDIDATE}.search", {"C": {"minimum": 0.1, "maximum": 1}}
        ),
        f"{CANDIDATE}.search.C",
        "Grid choices",
    ),
    "a logarithmic range from zero": (
        P.with_field(f"{CANDIDATE}.search", {"C": {"minimum": 0, "maximum": 1, "scale": "Log"}}),
        f"{CANDIDATE}.search.C.minimum",
        "logarithm Linear",
    ),
    "a whole-number range with a fraction": (
        P.with_field(f"{CANDIDATE}.search", {"C": {"minimum": 0.5, "maximum": 2, "type": "Integer"}}),
        f"{CANDIDATE}.search.C.minimum",
        "0.5 whole",
    ),
    "a choice of a search twice": (
        P.with_field(f"{CANDIDATE}.search", {"C": {"choices": [1, 2, 1]}}),
        f"{CANDIDATE}.search.C.choices[2]",
        "1 twice",
    ),
    "two candidates of one name": (
        P.with_candidate("logistic", "LightGBM"),
        "spec.training.candidates[1].name",
        "logistic twice",
    ),
    "stacking of one candidate": (
        P.with_field("spec.training.ensemble", {"methods": ["Bagging", "Stacking"]}),
        "spec.training.ensemble.methods[1]",
        "Stacking one",
    ),
    "a tuning metric of another target type": (
        P.with_field("spec.training.tuning", {"metric": "mae"}),
        "spec.training.tuning.metric",
        "Binary mae",
    ),
    "a gate on a metric of another target type": (
        P.with_field("spec.training.evaluation.gates", [{"metric": "r2", "threshold": 0.1}]),
        "spec.training.evaluation.gates[0].metric",
        "Binary r2",
    ),
    "a gate on something that is no slice": (
        P.with_field("spec.training.evaluation.gates", [{"metric": "rocAuc", "threshold": 0.6, "slice": "week"}]),
        "spec.training.evaluation.gates[0].slice",
        "week slices",
    ),
    "GPUs for training": (
        P.with_field("spec.training.scaling", {"workers": 1, "resourcesPerWorker": {"gpu": 1}}),
        "spec.training.scaling.resourcesPerWorker.gpu",
        "GPU CPUs",
    ),
    "GPUs for serving": (
        P.with_serving(resources={"gpu": 1}),
        "spec.serving.resources.gpu",
        "GPU CPUs",
    ),
    "fewer replicas at most than at least": (
        P.with_serving(autoscaling={"minReplicas": 3, "maxReplicas": 2}),
        "spec.serving.autoscaling.minReplicas",
        "3 2 Swap",
    ),
    "a fixed fallback outside the bounds": (
        P.with_serving(fallback={"policy": "Fixed", "action": {"price": "9", "discount": "0"}}),
        "spec.serving.fallback.action.price",
        "9 1.69 to 2.09",
    ),
    "a fixed fallback that leaves out a lever": (
        P.with_serving(fallback={"policy": "Fixed", "action": {"price": "2"}}),
        "spec.serving.fallback.action",
        "discount not set",
    ),
    "weights that do not rise": (
        P.with_serving(rollout={"steps": [{"weight": 50}, {"weight": 50}]}),
        "spec.serving.rollout",
        "weights must rise",
    ),
    "a weight of 0": (
        P.with_serving(rollout={"steps": [{"weight": 0}]}),
        "spec.serving.rollout.steps[0].weight",
        "greater 1",
    ),
    "a weight of 100": (
        P.with_serving(rollout={"steps": [{"weight": 100}]}),
        "spec.serving.rollout.steps[0].weight",
        "less 99",
    ),
    "an unknown guardrail": (
        P.with_field(f"{ANALYSIS}.metrics", [{"name": "churn", "better": "Lower"}]),
        f"{ANALYSIS}.metrics[0].name",
        "churn target fallbackRate",
    ),
    "a guardrail twice": (
        P.with_field(f"{ANALYSIS}.metrics", [{"name": "purchase", "better": "Higher"}] * 2),
        f"{ANALYSIS}.metrics[1].name",
        "purchase twice",
    ),
    "a guardrail without a range": (
        P.with_column("basket", role="AfterAction", minimum=0).with_field(
            f"{ANALYSIS}.metrics", [{"name": "basket", "better": "Higher"}]
        ),
        f"{ANALYSIS}.metrics[0].maximum",
        "basket range Declare",
    ),
    "a guardrail on classes": (
        a_multiclass_project().with_field(f"{ANALYSIS}.metrics", [{"name": "brand", "better": "Higher"}]),
        f"{ANALYSIS}.metrics[0].name",
        "brand mean",
    ),
    "more fallbacks as something good": (
        P.with_field(f"{ANALYSIS}.metrics", [{"name": "fallbackRate", "better": "Higher"}]),
        f"{ANALYSIS}.metrics[0].better",
        "Lower",
    ),
    "a rollout that ends before outcomes mature": (
        P.with_field(f"{ANALYSIS}.deadline", "30m"),
        f"{ANALYSIS}.deadline",
        "maturesAfter",
    ),
    "a project's name that is too long": (P.named("a" * 31), "metadata.name", "31 30"),
    "a project's name in capitals": (P.named("Shop"), "metadata.name", "lower-case"),
    "a field that does not exist": (P.with_field("spec.leverz", []), "spec.leverz", "not permitted spelling"),
    "a required field that is missing": (
        P.without_field("spec.objective.kpi.name"),
        "spec.objective.kpi.name",
        "required",
    ),
    "a number without quotes where it must be exact": (
        P.with_lever("price", minimum=1.69),
        "spec.levers[0].minimum",
        "1.69 quotes",
    ),
}


@pytest.mark.parametrize(
    ("project", "field", "words"), PROJECTS.values(), ids=[name.replace(" ", "-") for name in PROJECTS]
)
def test_a_fault_of_a_project_is_named_with_field_cause_and_remedy(
    project: ProjectBuilder, field: str, words: str
) -> None:
    found = problems(project.document())
    told = [str(problem) for problem in found if problem.field == field]
    assert told, [str(problem) for problem in found]
    assert any(all(word in text for word in words.split()) for text in told), told


R, D = a_run(), a_deployment()
OTHERS = {
    "a run of another project": (a_run(project="other"), "spec.project", "other shop"),
    "a run's name that is too long": (R.named("a" * 41), "metadata.name", "41 40"),
    "a run with an estimator that does not fit": (
        R.with_field("spec.candidates[0].estimator", "LinearRegression"),
        "spec.candidates[0].estimator",
        "LinearRegression Binary",
    ),
    "a run with an unknown parameter": (
        R.with_field("spec.candidates[0].parameters", {"c": 1}),
        "spec.candidates[0].parameters.c",
        "LogisticRegression C",
    ),
    "a run whose window has no zone": (
        R.with_field("spec.window", {"since": "2026-05-04T10:00:00"}),
        "spec.window.since",
        "zone RFC",
    ),
    "a run whose window is no time": (R.with_field("spec.window", {"since": "May"}), "spec.window.since", "May RFC"),
    "a Deployment of another project": (a_deployment(project="other"), "spec.project", "other shop"),
    "a Deployment's name that is too long": (D.named("a" * 39), "metadata.name", "39 38"),
    "a Deployment with an unknown guardrail": (
        D.with_field("spec.rollout.analysis.metrics", [{"name": "churn", "better": "Lower"}]),
        "spec.rollout.analysis.metrics[0].name",
        "churn",
    ),
    "a Deployment with a fallback that is no lever": (
        D.with_field("spec.fallback", {"policy": "Fixed", "action": {"prize": "2"}}),
        "spec.fallback.action.prize",
        "prize price",
    ),
}


@pytest.mark.parametrize(("built", "field", "words"), OTHERS.values(), ids=[name.replace(" ", "-") for name in OTHERS])
def test_a_fault_of_a_run_or_deployment_is_named_with_field_cause_and_remedy(
    built: ProjectBuilder, field: str, words: str
) -> None:
    told = [str(problem) for problem in problems(built.document()) if problem.field == field]
    assert any(all(word in text for word in words.split()) for text in told), problems(built.document())


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
