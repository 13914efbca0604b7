"""Each rule that the API server states, with an object that satisfies it and one that does not.

`drivetrain validate` must say the same offline, so both tests read this table.
"""

from dataclasses import dataclass
from typing import Any

from tests.support.builders import Builder, Manifest, a_deployment, a_project, a_run


@dataclass(frozen=True)
class Case:
    """A rule by its message, with an object that satisfies it and one that does not."""

    message: str
    accepted: Manifest
    rejected: Manifest
    field: str


def case(message: str, accepted: Builder[Any], rejected: Builder[Any], field: str) -> Case:
    return Case(message, accepted.document(), rejected.document(), field)


KPI = "spec.objective.kpi"
COLUMN = "spec.data.columns"
CASES: list[Case] = [
    case(
        "a topology takes either required or preferred",
        a_run().with_field("spec.cluster.topology", {"required": "rack", "spread": [{"topologyKey": "host"}]}),
        a_run().with_field("spec.cluster.topology", {"required": "rack", "preferred": "rack"}),
        "spec.cluster.topology",
    ),
    case(
        "more than one GPU is a whole number",
        a_project().with_field("spec.decisions.environment.accelerator", "GPU").with_serving(resources={"gpu": 0.25}),
        a_project().with_field("spec.decisions.environment.accelerator", "GPU").with_serving(resources={"gpu": 1.5}),
        "spec.serving.resources",
    ),
    case(
        "kpi.minimum must be below kpi.maximum",
        a_project().with_field(f"{KPI}.minimum", "-1").with_field(f"{KPI}.maximum", "1.5"),
        a_project().with_field(f"{KPI}.minimum", "2").with_field(f"{KPI}.maximum", "1.5"),
        f"{KPI}.minimum",
    ),
    case(
        "baseline takes exactly one of action, expression or logged: true",
        a_project()
        .with_field("spec.objective.baseline", {"logged": True})
        .with_column("price", minimum=1.69, maximum=2.09)
        .with_column("discount", minimum=0, maximum=0.5),
        a_project().with_field("spec.objective.baseline", {"logged": True, "action": {"price": "2"}}),
        "spec.objective.baseline",
    ),
    case(
        "a PerDecision constraint takes an expression; a Portfolio constraint takes a metric with a minimum or maximum",
        a_project().with_portfolio("purchase", minimum=0.4),
        a_project().with_portfolio("purchase"),
        "spec.objective.constraints[1]",
    ),
    case(
        "a Categorical lever takes at least two choices; other levers take minimum, maximum and step",
        a_project().with_lever("offer", type="Categorical", choices=["none", "mail"]),
        a_project().with_lever("offer", type="Categorical", choices=["none"]),
        "spec.levers[2]",
    ),
    case(
        "lever minimum must not be above its maximum",
        a_project().with_lever("price", minimum="2", maximum="2", step="0.05"),
        a_project().with_lever("price", minimum="2.1", maximum="2"),
        "spec.levers[0].minimum",
    ),
    case(
        "lever step must be above 0",
        a_project().with_lever("price", step="0.01"),
        a_project().with_lever("price", step="0"),
        "spec.levers[0].step",
    ),
    case(
        "a Categorical lever has no direction: effect must be Unknown",
        a_project().with_lever("offer", type="Categorical", choices=["none", "mail"], effect="Unknown"),
        a_project().with_lever("offer", type="Categorical", choices=["none", "mail"], effect="Increasing"),
        "spec.levers[2].effect",
    ),
    case(
        "a source takes a uri, unless its format is DecisionLog",
        a_project().with_field("spec.data.sources[0].uri", "file:///visits.parquet"),
        a_project().without_field("spec.data.sources[0].uri"),
        "spec.data.sources[0].uri",
    ),
    case(
        "a Derived column takes an expression; other columns take none",
        a_project().with_column("twice", role="Derived", expression="2 * price"),
        a_project().with_column("twice", role="Derived"),
        f"{COLUMN}[11].expression",
    ),
    case(
        "column minimum must not be above its maximum",
        a_project().with_column("age", minimum=1, maximum=1.5),
        a_project().with_column("age", minimum=2, maximum=1.5),
        f"{COLUMN}[11].minimum",
    ),
    case(
        "a Multiclass target takes at least three classes; other targets take none",
        a_project()
        .with_target(name="brand", type="Multiclass", classes=["a", "b", "c"])
        .with_value("(brand = 'a') * (price - discount - 1.1)")
        .with_lever("price", effect="Unknown")
        .with_lever("discount", effect="Unknown"),
        a_project().with_target(name="brand", type="Multiclass", classes=["a", "b"]),
        "spec.data.target.classes",
    ),
    case(
        "a Time or Group split takes a column; a Random one takes none",
        a_project().with_field("spec.data.split", {"strategy": "Group", "column": "week"}),
        a_project().with_field("spec.data.split", {"strategy": "Group"}),
        "spec.data.split.column",
    ),
    case(
        "a search range takes minimum and maximum together",
        a_run().with_field("spec.candidates[0].search", {"C": {"minimum": 0.1, "maximum": 10}}),
        a_run().with_field("spec.candidates[0].search", {"C": {"minimum": 0.1}}),
        "spec.candidates[0].search[C].minimum",
    ),
    case(
        "search minimum must be below its maximum",
        a_run().with_field("spec.candidates[0].search", {"C": {"minimum": 0.1, "maximum": 10}}),
        a_run().with_field("spec.candidates[0].search", {"C": {"minimum": 10, "maximum": 10}}),
        "spec.candidates[0].search[C].minimum",
    ),
    case(
        "a gate takes either a threshold or versus",
        a_run().with_field("spec.evaluation.gates", [{"metric": "rocAuc", "threshold": 0.6}]),
        a_run().with_field("spec.evaluation.gates", [{"metric": "rocAuc"}]),
        "spec.evaluation.gates[0]",
    ),
    case(
        "a Fixed fallback takes an action; others take none",
        a_deployment().with_field("spec.fallback", {"policy": "Fixed", "action": {"price": "2", "discount": "0"}}),
        a_deployment().with_field("spec.fallback", {"policy": "Fixed"}),
        "spec.fallback.action",
    ),
    case(
        "goal Superior takes no KPI tolerance",
        a_deployment().with_field("spec.rollout.analysis", {"goal": "NonInferior", "tolerance": 0.1}),
        a_deployment().with_field("spec.rollout.analysis", {"tolerance": 0.1}),
        "spec.rollout.analysis.tolerance",
    ),
    case(
        "weights must rise from step to step",
        a_deployment().with_field("spec.rollout.steps", [{"weight": 1}, {"weight": 50}, {"weight": 99}]),
        a_deployment().with_field("spec.rollout.steps", [{"weight": 10}, {"weight": 50}, {"weight": 50}]),
        "spec.rollout.steps",
    ),
    case(
        "a Deployment takes exactly one of project or model",
        a_deployment().without_field("spec.project").with_field("spec.model", {"name": "shop", "version": "3"}),
        a_deployment().with_field("spec.model", {"name": "shop", "version": "3"}),
        "spec",
    ),
    case(
        "a project's name takes at most 30 lower-case letters, digits and dashes, and starts with a letter",
        a_project("a" * 30),
        a_project("a" * 31),
        "metadata.name",
    ),
    case(
        "a run's name takes at most 40 lower-case letters, digits and dashes, and starts with a letter",
        a_run("a" * 40),
        a_run("4-runs"),
        "metadata.name",
    ),
    case(
        "a Deployment's name takes at most 38 lower-case letters, digits and dashes, and starts with a letter",
        a_deployment("a" * 38),
        a_deployment("a.b"),
        "metadata.name",
    ),
]
