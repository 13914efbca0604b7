"""What lives beside the operator, in one process and one logical time: KubeRay, Kueue, and what they start.

Each is a small state machine over the objects of a FakeCluster that moves when it is stepped.
"""

import json
from datetime import datetime

from drivetrain.api.documents import (
    JSON,
    Document,
    documents,
    integer,
    labels_of,
    mapping,
    name_of,
    namespace_of,
    sequence,
    text,
    texts,
    uid_of,
    value,
)
from drivetrain.api.kinds import POD, RAY_CLUSTER, RAY_JOB, RAY_SERVICE, SERVICE, WORKLOAD, Ref, ref_of
from drivetrain.api.names import QUEUE_LABEL, REVISION_LABEL
from tests.support.fake_cluster import FakeCluster
from tests.support.ray_programs import Driver, Replica, Script, Site, Store

ENDED = ("Complete", "Failed")


class RayWorld:
    """All of it; `step` moves everything once."""

    def __init__(self, cluster: FakeCluster, script: Script) -> None:
        self.cluster, self.script = cluster, script
        self.site = Site(cluster, Store(), script)
        self.missing_secrets = False
        self.quota = True
        self._numbers = 0
        self._drivers: dict[str, Driver] = {}
        self._replicas: dict[str, Replica] = {}
        self.served: set[str] = set()
        """Deployments that have had a ready variant."""

    def step(self, now: datetime) -> None:
        """Move Kueue, KubeRay, drivers and endpoints."""
        for job in self.cluster.find(RAY_JOB):
            if labels_of(job).get(QUEUE_LABEL):
                self._queue(job, now)
        for job in self.cluster.find(RAY_JOB):
            self._job(job, now)
        for service in self.cluster.find(RAY_SERVICE):
            self._service(service)
        for name, driver in list(self._drivers.items()):
            driver.step(now)
            # A zombie lives on for a while after its cluster is gone: its Pod is Terminating.
            if self.cluster.read(Ref(RAY_CLUSTER, driver.namespace, name)) is None:
                driver.grace -= 1
                if driver.grace <= 0:
                    del self._drivers[name]
        for name, replica in list(self._replicas.items()):
            live = self.cluster.read(Ref(RAY_SERVICE, replica.namespace, replica.service))
            if live is None:
                del self._replicas[name]
            else:
                replica.step(live, now)

    # Kueue

    def _queue(self, job: Document, now: datetime) -> None:
        """Suspend what is queued, admit it while there is quota, and take the quota back when it ended."""
        ref = Ref(WORKLOAD, namespace_of(job), f"rayjob-{name_of(job)}")
        workload = self.cluster.read(ref)
        if workload is None:
            self._set_suspend(job, True)
            body: dict[str, JSON] = {
                "apiVersion": WORKLOAD.api_version,
                "kind": WORKLOAD.kind,
                "metadata": {
                    "name": ref.name,
                    "namespace": ref.namespace,
                    "labels": {"kueue.x-k8s.io/job-uid": uid_of(job)},
                    "ownerReferences": [_owned_by(job)],
                },
            }
            workload = self.cluster.put(body, "kueue")
            self._workload(workload, admitted=False)
        elif text(workload, "metadata", "labels", "kueue.x-k8s.io/job-uid") != uid_of(job):
            self.cluster.remove(ref, "kueue")
        elif text(job, "status", "jobDeploymentStatus") in ENDED:
            if not any(text(each, "type") == "Finished" for each in documents(workload, "status", "conditions")):
                self._finish(workload, now)
        elif (
            self.quota
            and value(job, "spec", "suspend") is True
            and text(job, "status", "jobDeploymentStatus")
            in (
                "",
                "Suspended",
            )
        ):
            self._workload(workload, admitted=True)
            self._set_suspend(job, False)

    def evict(self) -> None:
        """Preempt every queued job that runs."""
        for job in self.cluster.find(RAY_JOB):
            workload = self.cluster.read(Ref(WORKLOAD, namespace_of(job), f"rayjob-{name_of(job)}"))
            if workload is None or value(job, "spec", "suspend") is not False:
                continue
            if text(job, "status", "jobDeploymentStatus") in ENDED:
                continue
            self._workload(workload, admitted=False, evicted=True)
            self._set_suspend(job, True)

    def _workload(self, workload: Document, *, admitted: bool, evicted: bool = False) -> None:
        found: list[JSON] = [
            {
                "type": "QuotaReserved",
                "status": "True" if admitted else "False",
                "reason": "QuotaReserved" if admitted else "Pending",
                "message": "",
            },
            {"type": "Evicted", "status": "True" if evicted else "False", "reason": "Preempted", "message": ""},
        ]
        self.cluster.put_status({**workload, "status": {"conditions": found}}, "kueue")

    def _finish(self, workload: Document, now: datetime) -> None:
        done: dict[str, JSON] = {"type": "Finished", "status": "True", "reason": "Succeeded", "message": ""}
        self.cluster.put_status(
            {**workload, "status": {"conditions": [{**done, "lastTransitionTime": _time(now)}]}}, "kueue"
        )

    def _set_suspend(self, job: Document, suspend: bool) -> None:
        live = self.cluster.read(ref_of(job))
        assert live is not None
        self.cluster.put({**live, "spec": {**mapping(live, "spec"), "suspend": suspend}}, "kueue")

    # KubeRay

    def _job(self, stale: Document, now: datetime) -> None:
        job = self.cluster.read(ref_of(stale))
        if job is None:
            return
        phase, cluster = text(job, "status", "jobDeploymentStatus"), text(job, "status", "rayClusterName")
        queued = bool(labels_of(job).get(QUEUE_LABEL))
        if phase in ENDED:
            return
        if value(job, "spec", "suspend") is True or (queued and value(job, "spec", "suspend") is None):
            if phase not in ("", "Suspended"):
                self._drop(namespace_of(job), cluster)
                self._status(job, {"jobDeploymentStatus": "Suspended", "jobStatus": ""})
            return
        if phase in ("", "Suspended"):
            name = self._cluster_of(job, mapping(job, "spec", "rayClusterSpec"), submitter=True)
            self._status(job, {"jobDeploymentStatus": "Initializing", "rayClusterName": name, "jobStatus": ""})
        elif phase == "Initializing":
            if self.missing_secrets:
                self._pods_wait(namespace_of(job), cluster)
                return
            self._drivers[cluster] = Driver(self.site, namespace_of(job), cluster, name_of(job))
            told: dict[str, JSON] = {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING", "startTime": _time(now)}
            self._status(job, {**mapping(job, "status"), **told})
        elif phase == "Running" and (cluster not in self._drivers or self._drivers[cluster].ended):
            good = cluster in self._drivers and self._drivers[cluster].ended == "ok"
            ending: dict[str, JSON] = {
                "jobDeploymentStatus": "Complete" if good else "Failed",
                "jobStatus": "SUCCEEDED" if good else "FAILED",
                "endTime": _time(now),
                "message": "" if good else "Job entrypoint command failed with exit code 1",
            }
            self._status(job, {**mapping(job, "status"), **ending})
            self._drop(namespace_of(job), cluster)

    def _service(self, service: Document) -> None:
        name = text(service, "status", "activeServiceStatus", "rayClusterName")
        if name:
            self._workers(service, name)
        if not name:
            name = self._cluster_of(service, mapping(service, "spec", "rayClusterConfig"), submitter=False)
            self._status(service, {"activeServiceStatus": {"rayClusterName": name}})
            return
        if self.missing_secrets and name not in self._replicas:
            return
        if name not in self._replicas:
            self._replicas[name] = Replica(self.site, namespace_of(service), name_of(service), name)
        if not any(text(each, "type") == "Ready" for each in documents(service, "status", "conditions")):
            if not self._replicas[name].is_up:
                return
            ready: list[JSON] = [{"type": "Ready", "status": "True", "reason": "NonZeroServeEndpoints"}]
            self._status(service, {**mapping(service, "status"), "conditions": ready, "numServeEndpoints": 1})

    def _workers(self, service: Document, cluster: str) -> None:
        """Follow the sizes of the RayCluster as KubeRay does: those that are named go, and then any, oldest first.

        Replicas sit on the oldest workers; one without a replica is not ready.
        """
        namespace, live = namespace_of(service), self.cluster.read(Ref(RAY_CLUSTER, namespace_of(service), cluster))
        if live is None:
            return
        (group,) = documents(live, "spec", "workerGroupSpecs")
        labels = {"ray.io/cluster": cluster, "ray.io/node-type": "worker"}
        pods = sorted(self.cluster.find(POD, namespace, labels), key=name_of)
        named = sequence(group, "scaleStrategy", "workersToDelete")
        leaving = [pod for pod in pods if name_of(pod) in named]
        pods = [pod for pod in pods if name_of(pod) not in named]
        surplus = max(len(pods) - integer(group, "replicas"), 0)
        for pod in leaving + pods[:surplus]:
            self.cluster.remove(ref_of(pod), "kuberay")
        pods = pods[surplus:]
        for _ in range(integer(group, "replicas") - len(pods)):
            self._numbers += 1
            name = f"{cluster}-worker-{self._numbers:05d}"
            self._pod(name, namespace, mapping(group, "template"), live, cluster, node="worker")
        applications = documents(json.loads(text(service, "spec", "serveConfigV2")), "applications")
        replicas = integer(documents(applications[0], "deployments")[0], "num_replicas")
        for index, pod in enumerate(pods):
            conditions: list[JSON] = [{"type": "Ready", "status": str(index < replicas)}]
            if value(pod, "status", "conditions") != conditions:
                self.cluster.put({**pod, "status": {**mapping(pod, "status"), "conditions": conditions}}, "kubelet")

    def _cluster_of(self, owner: Document, spec: Document, *, submitter: bool) -> str:
        self._numbers += 1
        name = f"{name_of(owner)}-{self._numbers:05d}"
        namespace = namespace_of(owner)
        made = self.cluster.put(
            {
                "apiVersion": RAY_CLUSTER.api_version,
                "kind": RAY_CLUSTER.kind,
                "metadata": {
                    "name": name,
                    "namespace": namespace,
                    "labels": labels_of(owner),
                    "ownerReferences": [_owned_by(owner)],
                },
                "spec": spec,
            },
            "kuberay",
        )
        self._pod(f"{name}-head", namespace, mapping(spec, "headGroupSpec", "template"), made, name, node="head")
        for group in documents(spec, "workerGroupSpecs"):
            for index in range(integer(group, "replicas")):
                worker = f"{name}-worker-{index:05d}"
                self._pod(worker, namespace, mapping(group, "template"), made, name, node="worker")
        if submitter:
            template = mapping(owner, "spec", "submitterPodTemplate")
            self._pod(f"{name_of(owner)}-submit-{self._numbers}", namespace, template, owner, "")
        return name

    def _pod(
        self, name: str, namespace: str, template: Document, owner: Document, cluster: str, *, node: str = ""
    ) -> None:
        ray = {"ray.io/cluster": cluster, "ray.io/node-type": node} if cluster else {}
        labels = {**texts(template, "metadata", "labels"), **ray}
        assert mapping(template, "spec"), "a Pod has a template"
        self.cluster.put(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": name,
                    "namespace": namespace,
                    "labels": labels,
                    "ownerReferences": [_owned_by(owner)],
                },
                "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
            },
            "kubelet",
        )

    def _pods_wait(self, namespace: str, cluster: str) -> None:
        waiting: list[JSON] = [
            {
                "name": "ray-head",
                "state": {"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "s3" not found'}},
            }
        ]
        for pod in self.cluster.find(POD, namespace, {"ray.io/cluster": cluster}):
            told: Document = {**pod, "status": {"phase": "Pending", "containerStatuses": waiting}}
            if value(pod, "status") != told["status"]:
                self.cluster.put(told, "kubelet")

    def _drop(self, namespace: str, cluster: str) -> None:
        """Delete a RayCluster; its Pods go when the garbage collector comes by."""
        ref = Ref(RAY_CLUSTER, namespace, cluster)
        if self.cluster.read(ref) is not None:
            self.cluster.remove(ref, "kuberay")

    def _status(self, document: Document, status: Document) -> None:
        live = self.cluster.read(ref_of(document))
        if live is not None:
            self.cluster.put_status({**live, "status": status}, "kuberay")

    # What must always hold

    def check(self) -> None:
        """Raise where a Deployment that had a ready variant has none, or where KubeRay took the last replica."""
        for name, replica in self._replicas.items():
            labels = {"ray.io/cluster": name, "ray.io/node-type": "worker"}
            workers = self.cluster.find(POD, replica.namespace, labels)
            told = [text(each, "status") for pod in workers for each in documents(pod, "status", "conditions")]
            if replica.is_up and told and "True" not in told:
                raise AssertionError(f"KubeRay took the last replica of {name}")
        for service in self.cluster.find(SERVICE):
            key = f"{namespace_of(service)}/{name_of(service)}"
            wanted = texts(service, "spec", "selector").get(REVISION_LABEL)
            ready = [
                replica
                for replica in self._replicas.values()
                if replica.namespace == namespace_of(service) and replica.revision == wanted and replica.is_up
            ]
            if ready:
                self.served.add(key)
            elif key in self.served:
                raise AssertionError(f"no variant is ready any more behind Service {key}")


def _owned_by(owner: Document) -> dict[str, JSON]:
    return {
        "apiVersion": text(owner, "apiVersion"),
        "kind": text(owner, "kind"),
        "name": name_of(owner),
        "uid": uid_of(owner),
        "controller": True,
    }


def _time(now: datetime) -> str:
    return now.strftime("%Y-%m-%dT%H:%M:%SZ")
