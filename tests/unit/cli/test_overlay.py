"""A plan starts from what applying would store: defaults, other writers' fields and what serves already stay."""

from dataclasses import replace

import pytest

from drivetrain.api.documents import Document, annotations_of, name_of, text, value
from drivetrain.api.kinds import DEPLOYMENT, DRIVETRAIN_PROJECT
from drivetrain.api.names import PAUSE_ANNOTATION
from drivetrain.cli import installation
from drivetrain.cli.forecast import Forecast, forecast
from drivetrain.cli.foreign import APPS_DEPLOYMENT
from drivetrain.controller.manifests.settings import Settings
from tests.support.bench import SETTINGS, Bench, RunBench, ServingBench
from tests.support.builders import Manifest, a_deployment, a_project, a_run
from tests.support.defaults import defaulted
from tests.support.operator_world import finish
from tests.unit.cli.person import Person
from tests.unit.cli.test_forecast import NOW, QUEUED, RICH, planned

NEWER = replace(SETTINGS, ray_image="example.org/ray:2")
UNKNOWN, _ = installation.settings(Person(denied=[APPS_DEPLOYMENT]))


def serving(manifest: Manifest | None = None) -> ServingBench:
    """An endpoint that serves, stored as the API server stores it."""
    bench = ServingBench(defaulted(manifest or a_deployment().document()))
    bench.up()
    return bench


def planned_by(settings: Settings, person: Person, manifest: Manifest) -> Forecast:
    return forecast(person, [manifest], settings, NOW)


def kinds(found: tuple[Document, ...]) -> set[str]:
    return {text(each, "kind") for each in found}


@pytest.mark.parametrize("settings", [SETTINGS, NEWER, UNKNOWN], ids=["same", "newer", "unknown"])
def test_an_unchanged_endpoint_changes_nothing_whatever_default_image_the_operator_has(settings: Settings) -> None:
    found = planned_by(settings, Person(serving(), others=RICH), a_deployment().document())
    prediction = found.prediction
    assert (prediction.created, prediction.changed, prediction.deleted) == ((), (), ())
    assert found.planned[0].changes == ()


def test_an_endpoint_that_changes_keeps_the_recorded_image_where_the_operators_is_not_known() -> None:
    changed = a_deployment().with_field("spec.rollout.holdout", 0.1).document()
    found = planned_by(UNKNOWN, Person(serving(), others=RICH), changed)
    assert [str(each) for each in found.planned[0].changes] == ["~ spec.rollout.holdout: 0.01 -> 0.1"]
    assert (kinds(found.prediction.created), found.prediction.deleted) == (set(), ())
    assert "RayService" in kinds(found.prediction.changed)


def test_another_image_replaces_the_cluster_of_an_endpoint() -> None:
    changed = a_deployment().with_field("spec.cluster.image", "example.org/mine:1").document()
    found = planned_by(UNKNOWN, Person(serving(), others=RICH), changed)
    assert "RayService" in kinds(found.prediction.created)


@pytest.mark.parametrize("denied", [(), ("patch",)], ids=["tried", "untried"])
def test_a_run_that_somebody_suspended_stays_suspended(denied: tuple[str, ...]) -> None:
    bench = RunBench()
    bench.cluster.put(defaulted(a_run().with_field("spec.suspend", True).document()), "kubectl-patch")
    bench.look()
    found = planned(Person(bench, others=RICH, denied=denied), a_run().document())
    assert (found.planned[0].changes, found.prediction.created) == ((), ())
    assert found.priced == (), "it asks for nothing while it is suspended"


def test_replicas_that_somebody_scaled_stay() -> None:
    bench = serving(a_deployment().with_field("spec.replicas", 4).document())
    found = planned(Person(bench, others=RICH), a_deployment().document())
    assert (found.planned[0].changes, found.prediction.changed) == ((), ())


@pytest.mark.parametrize("denied", [(), ("patch",)], ids=["tried", "untried"])
def test_annotations_of_others_stay_beside_those_of_the_manifest(denied: tuple[str, ...]) -> None:
    bench = serving()
    bench.annotate(DEPLOYMENT, "shop", pause="true")
    annotated = a_deployment().with_metadata(annotations={"team": "a"}).document()
    found = planned(Person(bench, others=RICH, denied=denied), annotated)
    (stands,) = [each for each in found.prediction.stands if name_of(each) == "shop"]
    assert annotations_of(stands) == {PAUSE_ANNOTATION: "true", "team": "a"}


@pytest.mark.parametrize("denied", [(), ("patch",)], ids=["tried", "untried"])
def test_what_kubectl_applied_goes_when_the_manifest_states_it_no_more(denied: tuple[str, ...]) -> None:
    bench = Bench()
    queued = a_deployment().with_field("spec.queue", {"name": "gpu-pool", "priorityClass": "high"})
    finish(bench.cluster.apply(queued.document(), field_manager="kubectl"))
    found = planned(Person(bench, others=QUEUED, denied=denied), a_deployment().document())
    assert [str(each) for each in found.planned[0].changes] == [
        '- spec.queue: {"name":"gpu-pool","priorityClass":"high"}'
    ]


def test_what_a_project_changes_of_its_endpoint_leaves_what_others_set() -> None:
    bench = Bench()
    bench.reconcile(DRIVETRAIN_PROJECT, "shop")
    bench.edit(DEPLOYMENT, "shop", replicas=4)
    bench.annotate(DEPLOYMENT, "shop", pause="true")
    changed = a_project().with_field("spec.serving.rollout", {"holdout": 0.1}).document()
    found = planned(Person(bench, others=RICH), changed)
    (stands,) = [each for each in found.prediction.changed if text(each, "kind") == "Deployment"]
    assert value(stands, "spec", "replicas") == 4
    assert annotations_of(stands)[PAUSE_ANNOTATION] == "true"
