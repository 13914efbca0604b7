"""`drivetrain plan`: what applying would create, change, wait for and cost, with the rights that there are."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from drivetrain.api.documents import Document, documents, name_of, namespace_of, text
from drivetrain.api.errors import DrivetrainError, NotFoundError
from drivetrain.api.kinds import (
    CLUSTER_QUEUE,
    DEPLOYMENT,
    DRIVETRAIN_PROJECT,
    LOCAL_QUEUE,
    OWN_KINDS,
    SECRET,
    TRAINING_RUN,
    Kind,
)
from drivetrain.cli.changes import changes
from drivetrain.cli.forecast import Forecast, forecast, planned_documents
from drivetrain.cli.forecast_view import as_document, forecast_text
from drivetrain.cli.foreign import NODE
from tests.support.bench import SETTINGS, Bench
from tests.support.builders import Manifest, a_project, a_run
from tests.support.fake_cluster import FakeCluster
from tests.unit.cli.person import Person
from tests.unit.cli.test_nodes import a_node
from tests.unit.cli.test_quota import QUEUE, pool

NOW = Bench().now
SECRETS: tuple[Document, ...] = tuple({"metadata": {"name": name, "namespace": "default"}} for name in ("s3", "keys"))
RICH = {SECRET: SECRETS, NODE: [a_node("a", cpu="64", memory="256Gi", gpus=8)]}
QUEUED = {
    **RICH,
    LOCAL_QUEUE: [{**QUEUE, "metadata": {"name": "gpu-pool", "namespace": "default"}}],
    CLUSTER_QUEUE: [pool(used=3)],
}


def planned(person: Person, *documents: Manifest) -> Forecast:
    return forecast(person, documents, SETTINGS, NOW)


def a_gpu_run(workers: int = 2, name: str = "shop-1") -> Manifest:
    run = a_run(name).with_field("spec.queue", {"name": "gpu-pool"}).with_field("spec.deadline", "6h")
    return run.with_field("spec.scaling", {"workers": workers, "resourcesPerWorker": {"gpu": 1}}).document()


def text_of(found: Forecast) -> str:
    return forecast_text(found).plain


def test_a_new_project_creates_its_first_run_its_endpoint_and_what_they_need() -> None:
    person = Person(FakeCluster(), others=RICH)
    found = planned(person, a_project().document())
    created = {(text(each, "kind"), name_of(each)) for each in found.prediction.created}
    assert {("TrainingRun", "shop-1"), ("Deployment", "shop")} <= created
    assert {"RayJob", "RayService", "Service"} <= {kind for kind, _ in created}
    told = text_of(found)
    assert "DrivetrainProject shop in namespace default: new" in told
    assert "TrainingRun shop-1 (Initial)" in told
    assert found.possible


def test_planning_writes_nothing_and_tries_each_manifest_by_dry_run() -> None:
    cluster = FakeCluster()
    person = Person(cluster, others=RICH)
    planned(person, a_project().document())
    assert (cluster.writes, len(person.tried)) == ([], 1)


def test_a_changed_bound_is_a_difference_and_starts_no_training() -> None:
    bench = settled()
    changed = a_project().with_lever("price", maximum="1.99").document()
    found = planned(Person(bench, others=RICH), changed)
    (planned_,) = found.planned
    assert [str(each) for each in planned_.changes] == ['~ spec.levers[price].maximum: "2.09" -> "1.99"']
    assert not [each for each in found.prediction.created if each["kind"] == "TrainingRun"]
    assert found.waits == ()


def settled() -> Bench:
    """A project whose first run is under way and whose endpoint is there."""
    bench = Bench()
    for _ in range(3):
        for kind, name in ((DRIVETRAIN_PROJECT, "shop"), (TRAINING_RUN, "shop-1"), (DEPLOYMENT, "shop")):
            bench.reconcile(kind, name)
    return bench


def test_what_is_applied_already_changes_nothing() -> None:
    found = planned(Person(settled(), others=RICH), a_project().document())
    assert (found.planned[0].changes, found.prediction.created, found.prediction.changed) == ((), (), ())
    assert "unchanged" in text_of(found)


def test_a_run_costs_at_most_its_gpus_times_its_deadline() -> None:
    found = planned(Person(Bench(), others=QUEUED), a_gpu_run())
    assert found.priced[0].cost == ("at most 12 GPU-hours: 2 GPUs times the deadline of 6h, all attempts together",)


def test_earlier_runs_are_told_as_a_median_that_bounds_nothing() -> None:
    bench = Bench()
    for number, hours in ((2, 1.0), (3, 3.0), (4, 2.0)):
        done = {"type": "Ready", "status": "True", "reason": "Succeeded"}
        bench.cluster.put(a_gpu_run(name=f"shop-{number}"))
        bench.set_status(TRAINING_RUN, f"shop-{number}", gpuSeconds=hours * 3600, conditions=[done])
    bench.cluster.put(a_run("shop-5").document())
    bench.set_status(TRAINING_RUN, "shop-5", conditions=[done])
    found = planned(Person(bench, others=QUEUED), a_gpu_run())
    assert found.priced[0].cost[1] == "median of 3 earlier runs with GPUs: 2 GPU-hours, which bounds nothing"


def test_a_queue_without_room_says_what_is_lacking_and_the_plan_is_possible() -> None:
    found = planned(Person(Bench(), others=QUEUED), a_gpu_run())
    assert "queue gpu-pool: 2 nvidia.com/gpu asked, 1 more needed: 3 of 4 in use" in text_of(found)
    assert found.possible


def test_more_than_a_queue_can_ever_give_is_not_possible() -> None:
    found = planned(Person(Bench(), others=QUEUED), a_gpu_run(workers=5))
    assert "can never give more than 4" in text_of(found)
    assert not found.possible


def test_a_queue_that_is_not_there_is_told() -> None:
    found = planned(Person(Bench(), others={**QUEUED, LOCAL_QUEUE: []}), a_gpu_run())
    assert "there is no such LocalQueue in namespace default" in text_of(found)
    assert not found.possible


def test_facts_that_may_not_be_read_are_named_one_by_one() -> None:
    person = Person(Bench(), others=QUEUED, denied=(CLUSTER_QUEUE, NODE, SECRET))
    told = text_of(planned(person, a_gpu_run(), a_project().document()))
    assert "ClusterQueue pool: you may not get clusterqueues" in told
    assert "what nodes there are: you may not list nodes" in told
    assert "whether Secret s3 is there: you may not get secrets in namespace default" in told


def test_missing_secrets_are_waited_for() -> None:
    found = planned(Person(FakeCluster(), others={**RICH, SECRET: SECRETS[:1]}), a_project().document())
    assert found.waits == ("Secret keys is not in namespace default: Pods wait until it is",)


def test_what_admission_refuses_is_not_possible() -> None:
    person = Person(Bench(), others=QUEUED, refuses="a run's spec is immutable")
    found = planned(person, a_gpu_run())
    assert "refused: " in text_of(found)
    assert not found.possible


def test_a_run_of_no_project_says_that_it_waits_for_one() -> None:
    orphan = a_run(project="gone").document()
    found = planned(Person(Bench(), others=QUEUED), orphan)
    assert any("ProjectNotFound" in each for each in found.waits)


def test_a_program_gets_the_same_answers() -> None:
    found = as_document(planned(Person(Bench(), others=QUEUED), a_gpu_run()))
    assert yaml.safe_load(yaml.safe_dump(found)) == found
    assert (found["possible"], found["unknown"]) == (True, [])
    assert [text(asked, "verdict") for asked in documents(found, "asks")] == ["waits"]


class Early(Person):
    """A person on a cluster where Drivetrain is yet to be installed."""

    def list(
        self, kind: Kind, labels: Mapping[str, str] | None = None, *, namespace: str | None = None
    ) -> tuple[Document, ...]:
        if kind in OWN_KINDS:
            raise NotFoundError("404 page not found", kind=kind.kind, namespace="", name="", status=404)
        return super().list(kind, labels, namespace=namespace)


def test_a_plan_is_made_before_the_definitions_are_installed() -> None:
    found = planned(Early(FakeCluster(), others=RICH), a_project().document())
    assert {"TrainingRun", "RayJob"} <= {text(each, "kind") for each in found.prediction.created}


def test_manifests_that_are_not_valid_are_refused_with_every_fault(tmp_path: Path) -> None:
    file = tmp_path / "project.yaml"
    file.write_text(yaml.safe_dump(a_project().with_lever("price", maximum="1").document()))
    with pytest.raises(DrivetrainError, match=r"project.yaml:\d+: spec.levers"):
        planned_documents([file], "default")


def test_manifests_without_a_namespace_get_the_sessions_and_others_are_counted(tmp_path: Path) -> None:
    file = tmp_path / "all.yaml"
    project = a_project().document()
    del project["metadata"]["namespace"]
    file.write_text(yaml.safe_dump_all([project, {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s3"}}]))
    (document,), other = planned_documents([file], "team-a")
    assert (namespace_of(document), other) == ("team-a", 1)


def test_changes_name_elements_of_lists_by_their_name() -> None:
    before: Document = {"levers": [{"name": "price", "step": "1"}, {"name": "old"}], "steps": [1, 2]}
    after: Document = {"levers": [{"name": "new"}, {"name": "price", "step": "2"}], "steps": [1, 3]}
    assert [str(each) for each in changes(before, after)] == [
        '~ spec.levers[price].step: "1" -> "2"',
        '- spec.levers[old]: {"name":"old"}',
        '+ spec.levers[new]: {"name":"new"}',
        "~ spec.steps[1]: 2 -> 3",
    ]
