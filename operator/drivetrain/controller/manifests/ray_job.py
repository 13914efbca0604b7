"""The RayJobs of one attempt of a run."""

from dataclasses import dataclass
from typing import Literal

from drivetrain.api.documents import JSON, Document
from drivetrain.api.kinds import RAY_JOB
from drivetrain.api.names import (
    ATTEMPT_ENV,
    ATTEMPT_LABEL,
    PIPELINE_ENTRYPOINT,
    PRIORITY_LABEL,
    QUEUE_LABEL,
    REPORT_ENV,
    RUN_UID_LABEL,
    SOURCES_DIRECTORY,
    SOURCES_ENV,
    SPEC_DIRECTORY,
    SPEC_ENV,
    SPEC_KEY,
    SUBMIT_COMMAND,
    TRACKING_ENV,
    UNTIL_DATA,
    account_name,
    ray_job_name,
    report_name,
    spec_name,
)
from drivetrain.api.runspec import RunSpec
from drivetrain.api.v1alpha1.dataset import SecretReference
from drivetrain.api.v1alpha1.training import Queue, Resources
from drivetrain.controller.manifests import pods
from drivetrain.controller.manifests.metadata import Owner, child
from drivetrain.controller.manifests.ray_cluster import PORTS, Group, Runtime, ray_cluster

S3_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
MLFLOW_KEYS = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
SUBMITTER = Resources(cpu="50m", memory="512Mi")
SUBMITTER_TRIES = 3
"""How often the submitter is started: a second one follows the job that the first has submitted."""
GRACE_SECONDS = 5
"""Of head and workers: process 1 there is a shell that passes no SIGTERM on, so that nothing ends before, and meanwhile
whoever preempted them waits for their GPUs. Work that is cut off is not lost: fence and trial log see to that."""


@dataclass(frozen=True, slots=True)
class Part:
    """Which job of a run: p prepares without GPUs, t trains with them; a run without GPUs has one that does both."""

    attempt: int
    name: Literal["", "p", "t"] = ""

    @property
    def entrypoint(self) -> str:
        """What the driver is started by."""
        return f"{PIPELINE_ENTRYPOINT} {UNTIL_DATA}" if self.name == "p" else PIPELINE_ENTRYPOINT

    def head(self, asked: Resources) -> Resources:
        """What the head asks for."""
        return asked.model_copy(update={"gpu": 0}) if self.name == "p" else asked


def ray_job(
    owner: Owner,
    spec: RunSpec,
    part: Part,
    runtime: Runtime,
    *,
    tracking_credentials: SecretReference | None = None,
) -> Document:
    """The RayJob of this part of an attempt. KubeRay retries nothing (`backoffLimit: 0`): attempts are ours.

    `suspend` is never stated, because Kueue owns it.
    """
    labels = attempt_labels(owner, part.attempt)
    account = account_name(owner.kind.kind, owner.name)
    shared = (*pods.secret_variables(spec.data.store.credentials, *S3_KEYS),)
    values = {
        SPEC_ENV: f"{SPEC_DIRECTORY}/{SPEC_KEY}",
        REPORT_ENV: report_name(owner.kind.kind, owner.name),
        ATTEMPT_ENV: str(part.attempt),
        SOURCES_ENV: SOURCES_DIRECTORY,
    }
    if spec.tracking_uri:
        values[TRACKING_ENV] = spec.tracking_uri
    if tracking_credentials is not None:
        shared += pods.secret_variables(tracking_credentials, *MLFLOW_KEYS)
    spec_mount = pods.config_map("spec", SPEC_DIRECTORY, spec_name(owner.name))
    sources = tuple(
        pods.secret(f"source-{index}", f"{SOURCES_DIRECTORY}/{source.name}", source.credentials)
        for index, source in enumerate(spec.data.sources)
        if source.credentials is not None
    )
    head = pods.PodPlan(
        container="ray-head",
        image=runtime.image,
        resources=part.head(spec.spec.cluster.head),
        account=account,
        labels=labels,
        environment=(*pods.base_environment(reports=True), *runtime.expectations, *pods.variables(values), *shared),
        mounts=(spec_mount, *sources, pods.api_token()),
        ports=PORTS,
        grace_seconds=GRACE_SECONDS,
    )
    worker = pods.PodPlan(
        container="ray-worker",
        image=runtime.image,
        resources=spec.spec.scaling.resources_per_worker,
        account=account,
        labels=labels,
        environment=(*pods.base_environment(reports=False), *runtime.expectations, *pods.variables(values), *shared),
        mounts=(spec_mount,),
        topology=spec.spec.cluster.topology,
        grace_seconds=GRACE_SECONDS,
    )
    submitter = pods.PodPlan(
        container="ray-job-submitter",
        image=runtime.image,
        resources=SUBMITTER,
        account=account,
        labels=labels,
        environment=(
            *pods.base_environment(reports=False),
            *pods.variables({name: values[name] for name in (SPEC_ENV, ATTEMPT_ENV)}),
            *pods.secret_variables(spec.data.store.credentials, *S3_KEYS),
        ),
        mounts=(spec_mount,),
        restart_policy="Never",
        command=(*SUBMIT_COMMAND, part.entrypoint),
    )
    cluster = spec.spec.cluster
    body: dict[str, JSON] = {
        "spec": {
            "entrypoint": part.entrypoint,
            "submissionMode": "K8sJobMode",
            "backoffLimit": 0,
            "submitterConfig": {"backoffLimit": SUBMITTER_TRIES - 1},
            "shutdownAfterJobFinishes": True,
            "submitterPodTemplate": pods.template(submitter, cluster),
            "rayClusterSpec": ray_cluster(
                runtime,
                head=Group(pods.template(head, cluster), head.resources),
                worker=Group(pods.template(worker, cluster), worker.resources),
                workers=0 if part.name == "p" else spec.spec.scaling.workers,
            ),
        }
    }
    return child(
        RAY_JOB,
        ray_job_name(owner.name, part.attempt, part.name),
        owner,
        body,
        labels={**labels, **queue_labels(spec.spec.queue)},
    )


def attempt_labels(owner: Owner, attempt: int) -> dict[str, str]:
    """Labels of everything that belongs to one attempt."""
    return {**owner.labels, RUN_UID_LABEL: owner.uid, ATTEMPT_LABEL: str(attempt)}


def queue_labels(queue: Queue | None) -> dict[str, str]:
    """Labels by which Kueue admits the work."""
    if queue is None:
        return {}
    return {QUEUE_LABEL: queue.name, **({PRIORITY_LABEL: queue.priority_class} if queue.priority_class else {})}
