"""Small Ray clusters for tests of what KubeRay and Kueue do: our Pod templates around a program of the test's own."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import boto3

from drivetrain.api.documents import Document, sequence, text
from drivetrain.api.kinds import SERVICE
from drivetrain.api.names import WORK_DIRECTORY
from drivetrain.api.v1alpha1.training import Cluster, Resources
from drivetrain.controller.manifests import pods
from tests.cluster.kubectl import Kubectl

PROGRAM = "/etc/program"
PROGRAMS = Path(__file__).with_name("programs")
RAY_VERSION = "2.60.0"
ANYWHERE = "0.0.0.0"  # noqa: S104 - inside a Pod, for KubeRay and the Service
S3_IMAGE = os.environ.get("DRIVETRAIN_S3_IMAGE", "docker.io/versity/versitygw:v1.8.0")
ACCESS_KEY, SECRET_KEY = "contract", "contract-secret"


def template(
    image: str,
    container: str,
    *,
    labels: Mapping[str, str] | None = None,
    gpu: int = 0,
    memory: str = "2Gi",
    variables: Mapping[str, str] | None = None,
    account: str = "default",
    restart_policy: str = "",
) -> dict[str, Any]:
    """A Pod template of ours, with the ConfigMap `program` at PROGRAM and the account's token."""
    plan = pods.PodPlan(
        container=container,
        image=image,
        resources=Resources(cpu="1", memory=memory, gpu=gpu) if gpu else Resources(cpu="1", memory=memory),
        account=account,
        labels=labels or {},
        environment=(*pods.base_environment(reports=True), *pods.variables(variables or {})),
        mounts=(pods.config_map("program", PROGRAM, "program"), pods.api_token()),
        restart_policy=restart_policy,
    )
    rendered = json.loads(json.dumps(pods.template(plan, Cluster())))
    assert isinstance(rendered, dict)
    # Two clusters and what stands around them must fit two cores.
    rendered["spec"]["containers"][0]["resources"]["requests"] |= {"cpu": "200m", "memory": "256Mi"}
    return rendered


def cluster_of(head: Document) -> dict[str, Any]:
    """A cluster of a head alone."""
    start = {"dashboard-host": ANYWHERE, "num-cpus": "1", "object-store-memory": "80000000"}
    return {
        "rayVersion": RAY_VERSION,
        "authOptions": {"mode": "token"},
        "headGroupSpec": {"rayStartParams": start, "template": head},
    }


def ray_job(name: str, entrypoint: str, head: Document, submitter: Document, labels: Mapping[str, str]) -> Document:
    """A RayJob as ours are: attempts are not KubeRay's, the cluster goes with the job, `suspend` is not stated."""
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"name": name, "labels": dict(labels)},
        "spec": {
            "entrypoint": entrypoint,
            "submissionMode": "K8sJobMode",
            "backoffLimit": 0,
            "shutdownAfterJobFinishes": True,
            "submitterPodTemplate": submitter,
            "rayClusterSpec": cluster_of(head),
        },
    }


def ray_service(name: str, import_path: str, head: Document, labels: Mapping[str, str] | None = None) -> Document:
    """A RayService as ours are: KubeRay replaces no cluster of it."""
    applications = [{"name": "hello", "route_prefix": "/", "import_path": import_path}]
    serve = {"http_options": {"host": ANYWHERE, "port": 8000}, "applications": applications}
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {"name": name, "labels": dict(labels or {})},
        "spec": {
            "upgradeStrategy": {"type": "None"},
            "serveConfigV2": json.dumps(serve),
            "rayClusterConfig": cluster_of(head),
        },
    }


def program(*names: str) -> Document:
    """The ConfigMap with programs of this folder."""
    data = {f"{name}.py": (PROGRAMS / f"{name}.py").read_text() for name in names}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "program"}, "data": data}


def s3_server(image: str) -> tuple[Document, ...]:
    """An S3 server whose data live as long as its Pod, and its Service `s3`."""
    plan = pods.PodPlan(
        container="s3",
        image=image,
        resources=Resources(cpu="200m", memory="256Mi"),
        account="default",
        labels={"app": "s3"},
        environment=(),
    )
    rendered = json.loads(json.dumps(pods.template(plan, Cluster())))
    rendered["spec"]["containers"][0]["args"] = [
        *("--access", ACCESS_KEY, "--secret", SECRET_KEY, "--port", ":7070", "posix", WORK_DIRECTORY)
    ]
    pod = {"apiVersion": "v1", "kind": "Pod", **rendered, "metadata": {"name": "s3", "labels": {"app": "s3"}}}
    return pod, service("s3", {"app": "s3"}, 7070)


def s3_at(url: str, access_key: str = ACCESS_KEY, secret_key: str = SECRET_KEY) -> Any:
    """A client of an S3 server, by default of that one."""
    return boto3.client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
    )


def service(name: str, selector: Mapping[str, str], port: int) -> Document:
    """A Service to the Pods with these labels."""
    spec: dict[str, Any] = {"selector": dict(selector), "ports": [{"port": port, "targetPort": port}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def address(team: Kubectl, service: str) -> str:
    """The Service's own address, for programs in Pods: the DNS of a loaded node loses lookups."""
    found = text(team.get(SERVICE, service) or {}, "spec", "clusterIP")
    assert found, f"the Service {service} has no address"
    return found


def condition(found: Document | None, type_: str) -> dict[str, Any]:
    """The condition of that type, or an empty map."""
    for each in sequence(found or {}, "status", "conditions"):
        if isinstance(each, dict) and text(each, "type") == type_:
            return each
    return {}
