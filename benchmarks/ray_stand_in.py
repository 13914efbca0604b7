"""KubeRay and the drivers, stood in for by one client of a real API server that writes what they would."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from drivetrain.api.canonical import canonical_json
from drivetrain.api.documents import JSON, Document, annotations_of, labels_of, name_of, text
from drivetrain.api.kinds import CONFIG_MAP, RAY_JOB, Kind
from drivetrain.api.names import INCARNATION_ANNOTATION, OWNER_NAME_LABEL, report_name
from drivetrain.api.report import RunResult, TrainingReport
from drivetrain.controller.cluster.kubernetes import KubernetesCluster

NAMESPACE = "default"


class RayStandIn:
    """KubeRay and the drivers: moves every RayJob from its creation to its end."""

    def __init__(self, cluster: KubernetesCluster, project_uid: str, stages: int) -> None:
        self._cluster, self._project_uid, self._stages = cluster, project_uid, stages
        self._slots = asyncio.Semaphore(16)
        self._claims: dict[str, asyncio.Event] = {}
        self._jobs: dict[str, asyncio.Task[None]] = {}
        self.writes = 0
        self.done = 0

    async def watch(self, kind: Kind) -> None:
        """Follows RayJobs, or the ConfigMaps that give a cluster its incarnation."""
        version = (await self._cluster.list(kind, NAMESPACE)).resource_version
        while True:
            async with self._cluster.watch(kind, NAMESPACE, resource_version=version) as events:
                async for event in events:
                    version = text(event.object, "metadata", "resourceVersion") or version
                    self._saw(kind, event.object)

    def _saw(self, kind: Kind, found: Document) -> None:
        if kind == RAY_JOB:
            if name_of(found) and name_of(found) not in self._jobs:
                self._jobs[name_of(found)] = asyncio.create_task(self._run(found))
            return
        _, _, named = annotations_of(found).get(INCARNATION_ANNOTATION, "").partition(" ")
        self._claim(named).set()

    def _claim(self, cluster: str) -> asyncio.Event:
        return self._claims.setdefault(cluster, asyncio.Event())

    async def _run(self, job: Document) -> None:
        run, cluster = labels_of(job)[OWNER_NAME_LABEL], f"{name_of(job)}-c"
        await self._status(job, jobDeploymentStatus="Initializing", rayClusterName=cluster, jobStatus="")
        running: Document = {"rayClusterName": cluster, "startTime": _now().strftime("%Y-%m-%dT%H:%M:%SZ")}
        await self._status(job, jobDeploymentStatus="Running", jobStatus="RUNNING", **running)
        await self._claim(cluster).wait()
        for stage in range(1, self._stages + 1):
            await self._report(run, cluster, stage)
        await self._status(job, jobDeploymentStatus="Complete", jobStatus="SUCCEEDED", **running)
        self.done += 1

    async def _status(self, job: Document, **status: JSON) -> None:
        async with self._slots:
            self.writes += 1
            await self._cluster.apply_status({**job, "status": dict(status)}, field_manager="kuberay")

    async def _report(self, run: str, cluster: str, stage: int) -> None:
        digest = hashlib.sha256(run.encode()).hexdigest()
        uri = f"s3://shop/data/models/{digest}"
        result = RunResult(state="Approved", version=run, digest=digest, uri=uri, project_uid=self._project_uid)
        report = TrainingReport(
            attempt=1,
            sequence=stage,
            at=_now(),
            stage=f"Stage{stage}",
            result=result if stage == self._stages else None,
        )
        metadata: Document = {"name": report_name("TrainingRun", run), "namespace": NAMESPACE}
        data: Document = {cluster: canonical_json(report)}
        async with self._slots:
            self.writes += 1
            document: Document = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
            await self._cluster.apply(document, field_manager=cluster)


def _now() -> datetime:
    return datetime.fromtimestamp(time.time(), UTC)


@asynccontextmanager
async def stand_in(cluster: KubernetesCluster, uid: str, stages: int) -> AsyncIterator[RayStandIn]:
    """KubeRay and drivers for as long as the context lasts."""
    ray = RayStandIn(cluster, uid, stages)
    tasks = [asyncio.create_task(ray.watch(kind)) for kind in (RAY_JOB, CONFIG_MAP)]
    try:
        yield ray
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
