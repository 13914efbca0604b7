"""Runs on KubeRay and Kueue, with this working tree's operator beside the cluster: their ends, dossiers and queues."""

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from drivetrain.api.documents import Document, documents, labels_of, text, uid_of, value
from drivetrain.api.dossier import Dossier
from drivetrain.api.kinds import CUSTOM_RESOURCE_DEFINITION, OWN_KINDS, RAY_JOB, TRAINING_RUN
from examples.renewals.market import history
from tests.cluster import clusters
from tests.cluster.forwarding import forwarded, free_port
from tests.cluster.images import Images
from tests.cluster.kubectl import Kubectl, until
from tests.cluster.queues import local_queue

pytestmark = pytest.mark.nightly

ROOT = Path(__file__).parents[2]
PROJECT = ROOT / "examples" / "renewals" / "project.yaml"
BUCKET = "drivetrain"
STARTED, ENDED = 240, 300
SMALL = {"cpu": "600m", "memory": "4Gi"}


@pytest.fixture
def operator(cluster: Kubectl, images: Images, tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """Starts the operator for one namespace, with the rights of whoever KUBECONFIG names; our kinds go with it."""
    running: list[subprocess.Popen[bytes]] = []

    def start(namespace: str) -> None:
        cluster("apply", "--server-side", "--force-conflicts", "-f", str(ROOT / "crds"))  # a release may have left them
        until(lambda: served(cluster), 30, "our kinds are served")
        command = [sys.executable, "-m", "drivetrain.controller.main", "--kubeconfig", os.environ["KUBECONFIG"]]
        command += ["--namespaces", namespace, "--lease-namespace", namespace, "--ray-image", images.ray]
        command += ["--metrics-host", "127.0.0.1", "--metrics-port", str(free_port())]
        with (tmp_path / "operator.log").open("wb") as log:
            running.append(subprocess.Popen(command, stdout=log, stderr=log))

    yield start
    for process in running:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    if (tmp_path / "operator.log").exists():
        sys.stderr.write((tmp_path / "operator.log").read_text()[-4000:])
    if running:  # Helm takes no definitions that are not its own
        cluster("delete", "-f", str(ROOT / "crds"), "--ignore-not-found")


def served(cluster: Kubectl) -> bool:
    names = (f"{kind.plural}.{kind.group}" for kind in OWN_KINDS)
    found = (clusters.condition(cluster.get(CUSTOM_RESOURCE_DEFINITION, name), "Established") for name in names)
    return all(each.get("status") == "True" for each in found)


def supplied(team: Kubectl) -> None:
    """A store with the example's history in it, and the Secret to reach it."""
    data = {"AWS_ACCESS_KEY_ID": clusters.ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": clusters.SECRET_KEY}
    team.apply(
        *clusters.s3_server(clusters.S3_IMAGE),
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s3"}, "stringData": data},
    )
    team("wait", "--for=condition=Ready", "pod/s3", "--timeout=90s", seconds=100)
    past = io.BytesIO()
    history(3_000, np.random.default_rng(20)).write_csv(past)
    with forwarded(team, "pod/s3", 7070) as url:
        clusters.s3_at(url).create_bucket(Bucket=BUCKET)
        clusters.s3_at(url).put_object(Bucket=BUCKET, Key="renewals-sources/past.csv", Body=past.getvalue())


def a_project(name: str, source: str = "past.csv", **training: Any) -> dict[str, Any]:
    """The example without serving, on this store."""
    manifest: dict[str, Any] = yaml.safe_load(PROJECT.read_text())
    manifest["metadata"]["name"] = name
    spec = manifest["spec"]
    del spec["serving"]
    spec["data"]["store"] |= {"uri": f"s3://{BUCKET}/{name}", "endpoint": "http://s3:7070"}
    spec["data"]["sources"][0]["uri"] = f"s3://{BUCKET}/renewals-sources/{source}"
    spec["training"]["tuning"] |= {"trials": 2, "parallelTrials": 1}
    spec["training"] |= {"cluster": {"head": SMALL}, "attempts": 1, **training}
    return manifest


def ended(team: Kubectl, run: str) -> Document | None:
    found = team.get(TRAINING_RUN, run)
    over = [clusters.condition(found, type_) for type_ in ("Complete", "Failed")]
    return found if any(each.get("status") == "True" for each in over) else None


def the_dossier(team: Kubectl, project: str, run: Document) -> Dossier:
    """The only dossier of a run, once its job is over."""
    with forwarded(team, "pod/s3", 7070) as url:

        def kept() -> list[str]:
            found = clusters.s3_at(url).list_objects_v2(
                Bucket=BUCKET, Prefix=f"{project}/runs/{uid_of(run)}/attempt-1/dossier/"
            )
            return [each["Key"] for each in found.get("Contents", ())]

        (key,) = until(kept, 60, "the dossier is kept")
        return Dossier.model_validate_json(clusters.s3_at(url).get_object(Bucket=BUCKET, Key=key)["Body"].read())


def test_a_run_succeeds_another_fails_and_both_leave_a_dossier_when_their_clusters_are_gone(
    namespaces: Callable[[str], Kubectl], operator: Callable[[str], None]
) -> None:
    team = namespaces("runs")
    supplied(team)
    operator("runs")
    team.apply(a_project("renewals"))
    run = until(lambda: ended(team, "renewals-1"), STARTED + ENDED, "the run ends")
    assert clusters.condition(run, "Complete")["status"] == "True", run["status"]
    assert clusters.condition(run, "Ready")["reason"] in ("Succeeded", "GateFailed")
    job = until(
        lambda: job if phase(job := team.get(RAY_JOB, "renewals-1-a1")) == "Complete" else None, 90, "the RayJob ends"
    )
    assert text(job, "status", "jobStatus") == "SUCCEEDED"
    kept = the_dossier(team, "renewals", run)
    assert (kept.ended, kept.attempt, kept.run) == ("Succeeded", 1, "renewals-1")
    assert kept.trials_done >= 2
    assert "Deployment done" in kept.log
    assert clusters.SECRET_KEY not in kept.model_dump_json()

    team.apply(a_project("broken", source="nothing.csv"))
    run = until(lambda: ended(team, "broken-1"), STARTED, "the broken run ends")
    assert clusters.condition(run, "Ready")["reason"] == "SourceNotFound"
    kept = the_dossier(team, "broken", run)
    assert kept.ended == "Failed"
    assert kept.job is not None
    assert (kept.job.status, kept.job.driver_exit_code) == ("FAILED", 2)
    assert "nothing.csv" in kept.log


def test_a_run_with_gpus_prepares_without_them_and_says_what_it_waits_for(
    queue: Callable[[str, int], None], namespaces: Callable[[str], Kubectl], operator: Callable[[str], None]
) -> None:
    team = namespaces("gpu-runs")
    supplied(team)
    queue("gpu-runs", 1)
    try:
        team.apply(local_queue("gpu-pool", "gpu-runs"), an_occupant())
        operator("gpu-runs")
        scaling = {"workers": 1, "resourcesPerWorker": {"cpu": "300m", "memory": "2Gi", "gpu": 1}}
        team.apply(a_project("renewals", scaling=scaling, queue={"name": "gpu-pool"}))

        def told() -> str:
            return text(team.get(TRAINING_RUN, "renewals-1") or {}, "status", "why")

        wanted = "waits for 1 nvidia.com/gpu in queue gpu-pool: 1 more needed, 1 of 1 in use, position 1 in its queue"
        until(lambda: told() == wanted, STARTED + ENDED, wanted)
        run = team.get(TRAINING_RUN, "renewals-1")
        assert text(run or {}, "status", "rayJob") == "renewals-1-a1-t"
        assert value(run or {}, "status", "gpuSeconds") == 0
        assert text(run or {}, "status", "dataVersion")
        team("delete", "job/occupant", "--wait=false")
        running = until(lambda: gpu_pod(team), STARTED, "the worker has its GPU")
        assert labels_of(running)["drivetrain.dev/attempt"] == "1"
        charged = until(
            lambda: value(team.get(TRAINING_RUN, "renewals-1") or {}, "status", "gpuSeconds"), 120, "charged"
        )
        assert isinstance(charged, int | float)
    finally:
        team("delete", "dtp", "--all", "--wait=true")


def phase(job: Document | None) -> str:
    return text(job or {}, "status", "jobDeploymentStatus")


def an_occupant() -> Document:
    """A job of somebody else's that holds the GPU."""
    pod: dict[str, Any] = json.loads(json.dumps(clusters.s3_server(clusters.S3_IMAGE)[0]))
    amounts: dict[str, Any] = {"cpu": "100m", "memory": "64Mi", "nvidia.com/gpu": "1"}
    pod["spec"]["containers"][0]["resources"] = {"requests": amounts, "limits": amounts}
    pod["spec"]["restartPolicy"] = "Never"
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "occupant", "labels": {"kueue.x-k8s.io/queue-name": "gpu-pool"}},
        "spec": {"suspend": True, "template": {"metadata": {"labels": {"app": "occupant"}}, "spec": pod["spec"]}},
    }


def gpu_pod(team: Kubectl) -> Document | None:
    """A Pod of the run that runs with a GPU."""
    found = team("get", "pods", "-l", "ray.io/node-type=worker", "-o", "json")
    for pod in documents(yaml.safe_load(found), "items"):
        if text(pod, "status", "phase") == "Running":
            return pod
    return None
