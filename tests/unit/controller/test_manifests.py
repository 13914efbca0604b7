"""What is rendered: the same bytes as ever, and what Pod Security, Kueue and KubeRay ask for."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from drivetrain.api.documents import (
    Document,
    annotations_of,
    documents,
    labels_of,
    mapping,
    name_of,
    sequence,
    text,
    value,
)
from drivetrain.api.names import NO_TELEMETRY
from drivetrain.api.v1alpha1.training import Resources
from drivetrain.controller.manifests.quantities import SMALLEST_STORE, amount, times
from drivetrain.controller.manifests.ray_service import (
    most_replicas,
    pod_resources,
    replicas_per_pod,
    revision_of,
    with_revision,
)
from tests.support.builders import a_deployment
from tests.unit.controller.rendered import GOLDEN, golden_text, rendered

RAY_KINDS = ("ray_job", "ray_job_prepare", "ray_service", "ray_service_scaled")


def templates(document: Document) -> Iterator[tuple[str, Document]]:
    """All Pod templates of a RayJob or RayService, by their role."""
    spec = mapping(document, "spec")
    cluster = mapping(spec, "rayClusterSpec") or mapping(spec, "rayClusterConfig")
    yield "head", mapping(cluster, "headGroupSpec", "template")
    for group in documents(cluster, "workerGroupSpecs"):
        yield "worker", mapping(group, "template")
    if "submitterPodTemplate" in spec:
        yield "submitter", mapping(spec, "submitterPodTemplate")


def all_templates() -> list[object]:
    found = rendered()
    return [
        pytest.param(template, id=f"{role} of {name}")
        for name in RAY_KINDS
        for role, template in templates(found[name])
    ]


@pytest.mark.parametrize("name", RAY_KINDS)
def test_idle_cores_may_be_used_and_everything_else_is_limited_to_what_kueue_counts(name: str) -> None:
    for _, template in templates(rendered()[name]):
        for container in documents(template, "spec", "containers"):
            requests, limits = (mapping(container, "resources", each) for each in ("requests", "limits"))
            assert {"cpu": requests["cpu"], **limits} == requests
            assert "memory" in limits
            assert "cpu" not in limits


@pytest.mark.parametrize("name", ["ray_job", "ray_job_prepare"])
def test_only_the_submitter_of_a_run_gets_time_to_end(name: str) -> None:
    graces = {
        role: value(template, "spec", "terminationGracePeriodSeconds") for role, template in templates(rendered()[name])
    }
    assert graces == {role: None if role == "submitter" else 5 for role in graces}


@pytest.mark.parametrize("name", sorted(rendered()))
def test_objects_are_rendered_byte_for_byte_as_reviewed(name: str) -> None:
    """After a deliberate change: python -m tests.unit.controller.rendered."""
    assert golden_text(rendered()[name]) == (GOLDEN / f"{name}.json").read_text()


def test_another_process_with_another_hash_seed_renders_the_same_bytes() -> None:
    program = (
        "from tests.unit.controller.rendered import *\nprint(''.join(map(golden_text, rendered().values())), end='')"
    )
    told = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONHASHSEED": "4711", "PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout == "".join(map(golden_text, rendered().values()))


@pytest.mark.parametrize("template", all_templates())
def test_every_pod_satisfies_pod_security_restricted(template: Document) -> None:
    spec = mapping(template, "spec")
    assert value(spec, "securityContext", "runAsNonRoot") is True
    assert value(spec, "securityContext", "seccompProfile", "type") == "RuntimeDefault"
    assert spec["automountServiceAccountToken"] is False
    allowed = {"emptyDir", "configMap", "secret", "projected"}
    for volume in documents(spec, "volumes"):
        assert set(volume) - {"name"} <= allowed
    for container in documents(spec, "containers"):
        context = mapping(container, "securityContext")
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert value(context, "capabilities", "drop") == ["ALL"]
        assert "privileged" not in context


@pytest.mark.parametrize("template", all_templates())
def test_every_pod_takes_its_pull_secrets_from_an_account_of_ours(template: Document) -> None:
    spec = mapping(template, "spec")
    kind = labels_of(template)["drivetrain.dev/owner-kind"].lower()
    assert spec["serviceAccountName"] == f"{kind}-{labels_of(template)['drivetrain.dev/owner-name']}"
    assert "imagePullSecrets" not in spec, "it would be another cluster, and the account's would not be added"


@pytest.mark.parametrize("template", all_templates())
def test_every_mount_has_its_volume(template: Document) -> None:
    spec = mapping(template, "spec")
    volumes = {text(volume, "name") for volume in documents(spec, "volumes")}
    for container in documents(spec, "containers"):
        mounts = documents(container, "volumeMounts")
        assert {text(mount, "name") for mount in mounts} == volumes
        paths = [text(mount, "mountPath") for mount in mounts]
        assert len(paths) == len(set(paths))


@pytest.mark.parametrize("name", RAY_KINDS)
def test_only_the_head_holds_the_token_that_may_report(name: str) -> None:
    for role, template in templates(rendered()[name]):
        projected = [each for each in documents(mapping(template, "spec"), "volumes") if "projected" in each]
        assert bool(projected) == (role == "head")


@pytest.mark.parametrize("name", RAY_KINDS)
def test_token_authentication_is_on_and_no_secret_is_named_for_it(name: str) -> None:
    spec = mapping(rendered()[name], "spec")
    cluster = mapping(spec, "rayClusterSpec") or mapping(spec, "rayClusterConfig")
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["enableInTreeAutoscaling"] is False


@pytest.mark.parametrize("name", RAY_KINDS)
def test_no_secret_value_and_no_suspend_is_rendered(name: str) -> None:
    plain = golden_text(rendered()[name])
    assert '"suspend"' not in plain
    for _, template in templates(rendered()[name]):
        for container in documents(mapping(template, "spec"), "containers"):
            for variable in documents(container, "env"):
                if text(variable, "name").startswith("AWS_"):
                    assert "value" not in variable


@pytest.mark.parametrize("template", all_templates())
def test_the_serving_flags_sit_in_every_ray_container(template: Document) -> None:
    for container in documents(mapping(template, "spec"), "containers"):
        flags = {text(each, "name"): text(each, "value") for each in documents(container, "env")}
        assert flags["RAY_SERVE_ENABLE_HA_PROXY"] == "1"
        assert flags["RAY_SERVE_THROUGHPUT_OPTIMIZED"] == "1"


@pytest.mark.parametrize("template", all_templates())
def test_no_library_of_a_ray_container_calls_its_makers(template: Document) -> None:
    for container in documents(mapping(template, "spec"), "containers"):
        told = {text(each, "name"): text(each, "value") for each in documents(container, "env")}
        assert told.items() >= NO_TELEMETRY.items()


@pytest.mark.parametrize("template", all_templates())
def test_shared_memory_is_bounded_and_holds_the_object_store(template: Document) -> None:
    spec = mapping(template, "spec")
    (shared,) = [each for each in documents(spec, "volumes") if text(each, "name") == "shm"]
    limit = amount(text(shared, "emptyDir", "sizeLimit"))
    memory = amount(text(documents(spec, "containers")[0], "resources", "requests", "memory"))
    assert SMALLEST_STORE <= limit < memory


@pytest.mark.parametrize("name", RAY_KINDS)
def test_the_object_store_fits_into_shared_memory(name: str) -> None:
    cluster = mapping(rendered()[name], "spec", "rayClusterSpec") or mapping(
        rendered()[name], "spec", "rayClusterConfig"
    )
    for group in (mapping(cluster, "headGroupSpec"), *documents(cluster, "workerGroupSpecs")):
        (shared,) = [each for each in documents(group, "template", "spec", "volumes") if text(each, "name") == "shm"]
        assert int(text(group, "rayStartParams", "object-store-memory")) <= amount(
            text(shared, "emptyDir", "sizeLimit")
        )


@pytest.mark.parametrize("name", RAY_KINDS)
def test_ray_pods_know_which_versions_their_image_should_hold(name: str) -> None:
    for role, template in templates(rendered()[name]):
        found = {
            text(each, "name"): text(each, "value")
            for container in documents(mapping(template, "spec"), "containers")
            for each in documents(container, "env")
        }
        if role != "submitter":
            assert (found["DRIVETRAIN_EXPECTED_RAY"], found["DRIVETRAIN_EXPECTED_PYTHON"]) == ("2.60.0", "3.11")
        assert found["HOME"] == "/var/lib/drivetrain"


def test_no_probe_of_a_serving_worker_needs_a_program_in_the_image() -> None:
    for role, template in templates(rendered()["ray_service"]):
        (container,) = documents(mapping(template, "spec"), "containers")
        assert ("httpGet" in mapping(container, "readinessProbe")) == (role == "worker")


def test_topology_hints_sit_on_workers_only() -> None:
    for role, template in templates(rendered()["ray_job"]):
        required = annotations_of(template).get("kueue.x-k8s.io/podset-required-topology")
        assert required == ("cloud.provider.com/rack" if role == "worker" else None)
        assert mapping(template, "spec")["runtimeClassName"] == "nvidia"
    for role, template in templates(rendered()["ray_service_scaled"]):
        spread = documents(mapping(template, "spec"), "topologySpreadConstraints")
        assert [text(each, "topologyKey") for each in spread] == (
            ["topology.kubernetes.io/zone"] if role == "worker" else []
        )
        for each in spread:
            assert value(each, "labelSelector", "matchLabels", "drivetrain.dev/owner-uid") == "d-uid"


@pytest.mark.parametrize(
    ("quantity", "count", "expected"), [("500m", 3, "1500m"), ("2Gi", 2, "4Gi"), ("1.5", 2, "3"), ("1", 10, "10")]
)
def test_a_quantity_is_multiplied_in_its_own_unit(quantity: str, count: int, expected: str) -> None:
    assert times(quantity, count) == expected
    assert amount(times(quantity, count)) == amount(quantity) * count


def test_every_pod_of_an_attempt_says_so() -> None:
    for _, template in templates(rendered()["ray_job"]):
        labels = labels_of(template)
        assert (labels["drivetrain.dev/run-uid"], labels["drivetrain.dev/attempt"]) == ("r-uid", "2")


def test_the_ray_job_retries_nothing_and_frees_its_cluster() -> None:
    spec = mapping(rendered()["ray_job"], "spec")
    assert (spec["backoffLimit"], spec["shutdownAfterJobFinishes"]) == (0, True)
    assert spec["submissionMode"] == "K8sJobMode"
    assert spec["entrypoint"] == "python -m drivetrain.pipelines"


def test_preparing_asks_for_no_gpu_in_the_same_queue_and_ends_with_the_data_stages() -> None:
    first, second = rendered()["ray_job_prepare"], rendered()["ray_job"]
    assert "nvidia.com/gpu" in golden_text(second)
    assert "nvidia.com/gpu" not in golden_text(first)
    assert labels_of(first) == labels_of(second)
    assert (name_of(first), name_of(second)) == ("shop-1-a2-p", "shop-1-a2-t")
    assert "workerGroupSpecs" not in mapping(first, "spec", "rayClusterSpec")
    assert text(first, "spec", "entrypoint") == "python -m drivetrain.pipelines --until=data"
    (submitter,) = documents(first, "spec", "submitterPodTemplate", "spec", "containers")
    assert sequence(submitter, "command")[-1] == text(first, "spec", "entrypoint")


def test_the_revision_is_on_every_pod_of_the_service_and_not_in_its_own_hash() -> None:
    document = rendered()["ray_service"]
    revision = labels_of(document)["drivetrain.dev/revision"]
    for _, template in templates(document):
        assert labels_of(template)["drivetrain.dev/revision"] == revision
    config = mapping(document, "spec", "rayClusterConfig")
    assert with_revision(config, revision) == config
    assert revision_of(config) != revision_of({**config, "rayVersion": "2.61.0"})


def test_the_monitor_is_pinned_to_the_head_and_replicas_are_not() -> None:
    serve = text(rendered()["ray_service"], "spec", "serveConfigV2")
    assert '"ray_actor_options":{"num_cpus":0,"resources":{"node:__internal_head__":0.001}}' in serve
    start = mapping(rendered()["ray_service"], "spec", "rayClusterConfig", "headGroupSpec", "rayStartParams")
    assert start["num-cpus"] == "0"


def test_owner_references_hold_nobody_up() -> None:
    for document in rendered().values():
        (owner,) = sequence(mapping(document, "metadata"), "ownerReferences")
        assert isinstance(owner, dict)
        assert owner["blockOwnerDeletion"] is False


@pytest.mark.parametrize(("quantity", "expected"), [("1", 1.0), ("500m", 0.5), ("2.5", 2.5)])
def test_cpus_are_counted_as_ray_counts_them(quantity: str, expected: float) -> None:
    assert float(amount(quantity)) == expected


@pytest.mark.parametrize(
    ("gpu", "replicas", "per_pod", "in_pod"),
    [(0, 3, 1, 0), (1, 3, 1, 1), (2, 3, 1, 2), (0.5, 3, 2, 1), (0.3, 5, 3, 1), (0.1, 4, 10, 1), (0.7, 2, 1, 1)],
)
def test_replicas_that_share_a_gpu_share_a_pod_and_a_pod_asks_for_whole_ones(
    gpu: float, replicas: int, per_pod: int, in_pod: int
) -> None:
    spec = (
        a_deployment()
        .with_field("spec.replicas", replicas)
        .with_field("spec.resources", {"cpu": "500m", "memory": "1Gi", "gpu": gpu})
        .build()
        .spec
    )
    assert (replicas_per_pod(spec), most_replicas(spec)) == (per_pod, replicas)
    assert pod_resources(spec) == Resources(cpu=f"{500 * per_pod}m", memory=f"{per_pod}Gi", gpu=in_pod)


def served(document: Document) -> tuple[Document, Document]:
    """What a RayService says of its endpoint's replicas, and of the workers that hold them."""
    serve = json.loads(text(document, "spec", "serveConfigV2"))
    endpoint, _ = documents(documents(serve, "applications")[0], "deployments")
    (workers,) = documents(document, "spec", "rayClusterConfig", "workerGroupSpecs")
    return endpoint, workers


@pytest.mark.parametrize("name", ["ray_service", "ray_service_scaled"])
def test_a_worker_has_room_for_as_many_replicas_as_it_is_sized_for_and_for_no_others(name: str) -> None:
    endpoint, workers = served(rendered()[name])
    shares = 2 if name == "ray_service_scaled" else 1
    options = mapping(endpoint, "ray_actor_options")
    assert options == {"num_cpus": 1, **({"num_gpus": 0.5} if shares == 2 else {})}
    assert text(workers, "rayStartParams", "num-cpus") == str(shares)
    (container,) = documents(workers, "template", "spec", "containers")
    asked = mapping(container, "resources", "requests")
    assert (asked["cpu"], asked.get("nvidia.com/gpu")) == (("1000m", "1") if shares == 2 else ("1", None))


def test_autoscaling_moves_replicas_within_a_cluster_of_fixed_size() -> None:
    document = rendered()["ray_service_scaled"]
    endpoint, workers = served(document)
    assert mapping(endpoint, "autoscaling_config") == {
        "min_replicas": 1,
        "max_replicas": 3,
        "target_ongoing_requests": 4,
    }
    assert "num_replicas" not in endpoint
    assert (workers["minReplicas"], workers["replicas"], workers["maxReplicas"]) == (2, 2, 2)
    assert value(document, "spec", "rayClusterConfig", "enableInTreeAutoscaling") is False
