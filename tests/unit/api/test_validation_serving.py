"""What is wrong with endpoints, rollouts, guardrails and Deployments."""

import pytest

from tests.support.builders import ProjectBuilder, a_deployment, a_project
from tests.support.findings import a_multiclass_project, assert_told

ANALYSIS = "spec.serving.rollout.analysis"
P = a_project()
D = a_deployment()
FAULTS = {
    "GPUs for serving that the environment does not have": (
        P.with_serving(resources={"gpu": 1}),
        "spec.serving.resources.gpu",
        "GPU None",
    ),
    "no GPU for an environment that has them": (
        P.with_serving().with_field("spec.decisions.environment.accelerator", "GPU"),
        "spec.serving.resources.gpu",
        "GPU None",
    ),
    "a GPU and a half": (
        P.with_serving(resources={"gpu": 1.5}).with_field("spec.decisions.environment.accelerator", "GPU"),
        "spec.serving.resources",
        "whole",
    ),
    "a GPU for the head of an endpoint": (
        P.with_serving(cluster={"head": {"gpu": 1}}),
        "spec.serving.cluster.head.gpu",
        "head resources",
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


@pytest.mark.parametrize(("built", "field", "words"), FAULTS.values(), ids=[name.replace(" ", "-") for name in FAULTS])
def test_a_fault_of_serving_is_named_with_field_cause_and_remedy(built: ProjectBuilder, field: str, words: str) -> None:
    assert_told(built, field, words)
