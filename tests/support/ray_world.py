"""What lives beside the operator, in one process and one logical time: KubeRay, Kueue, drivers, replicas, the Monitor.

Each is a small state machine over the objects of a FakeCluster that moves when it is stepped. What the real ones keep
on S3 (claims, committed work, rollout evidence) lies in `Store` and survives every crash.
"""

import hashlib
import json
import random
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from drivetrain.api.canonical import canonical_json
from drivetrain.api.documents import (
    JSON,
    Document,
    annotations_of,
    documents,
    integer,
    labels_of,
    mapping,
    name_of,
    namespace_of,
    text,
    texts,
    uid_of,
    value,
)
from drivetrain.api.kinds import (
    CONFIG_MAP,
    POD,
    RAY_CLUSTER,
    RAY_JOB,
    RAY_SERVICE,
    SERVICE,
    WORKLOAD,
    Ref,
    ref_of,
)
from drivetrain.api.names import (
    ATTEMPT_LABEL,
    INCARNATION_ANNOTATION,
    QUEUE_LABEL,
    REVISION_LABEL,
    RUN_UID_LABEL,
    policies_name,
    report_name,
)
from drivetrain.api.policy import EndpointConfig, Policy
from drivetrain.api.report import (
    DetectorEvidence,
    DriftEvidence,
    KpiEvidence,
    MetricEvidence,
    PolicyLoad,
    RolloutEvidence,
    RunResult,
    ServingReport,
    TrainingReport,
)
from drivetrain.api.runspec import RunSpec
from drivetrain.api.v1alpha1.trainingrun import GateResult, Progress
from tests.support.fake_cluster import FakeCluster


@dataclass
class Store:
    """S3: what is written once and read by all."""

    claims: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Run uid to the (attempt, incarnation) that owns its work."""
    claimed_by: dict[tuple[str, int, int], str] = field(default_factory=dict)
    """(run uid, attempt, incarnation) to the cluster that claimed it: never two."""
    commits: list[tuple[str, int, int]] = field(default_factory=list)
    outcomes: dict[str, int] = field(default_factory=dict)
    """Rollout to matured outcomes per arm."""
    work: dict[str, int] = field(default_factory=dict)
    """Run uid to committed stages: a later attempt resumes there."""


@dataclass
class Script:
    """How the world behaves."""

    effects: dict[str, float] = field(default_factory=dict)
    """Model version to its KPI beside today's policy; 0.1 where it is not named."""
    results: dict[str, RunResult] = field(default_factory=dict)
    """Run to a result other than approval."""
    flaky: dict[str, int] = field(default_factory=dict)
    """Run to the number of attempts that crash before it succeeds."""
    stages: int = 3
    drifts_after: dict[str, int] = field(default_factory=dict)
    """Model version to the outcomes after which its calibration drifts severely."""
    missing_models: set[str] = field(default_factory=set)
    """Versions whose graph no replica finds."""
    per_step: int = 150


class RayWorld:
    """All of it; `step` moves everything once."""

    def __init__(self, cluster: FakeCluster, script: Script, rng: random.Random) -> None:
        self.cluster, self.script, self.rng = cluster, script, rng
        self.store = Store()
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
                self._queue(job)
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

    def _queue(self, job: Document) -> None:
        """Suspend what is queued, admit it while there is quota."""
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
            if text(job, "status", "jobDeploymentStatus") in ("Complete", "Failed"):
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
        if phase in ("Complete", "Failed"):
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
            self._drivers[cluster] = Driver(self, namespace_of(job), cluster, name_of(job))
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
        if not name:
            name = self._cluster_of(service, mapping(service, "spec", "rayClusterConfig"), submitter=False)
            self._status(service, {"activeServiceStatus": {"rayClusterName": name}})
            return
        if self.missing_secrets and name not in self._replicas:
            return
        if name not in self._replicas:
            self._replicas[name] = Replica(self, namespace_of(service), name_of(service), name)
        if not any(text(each, "type") == "Ready" for each in documents(service, "status", "conditions")):
            if not self._replicas[name].is_up:
                return
            ready: list[JSON] = [{"type": "Ready", "status": "True", "reason": "NonZeroServeEndpoints"}]
            self._status(service, {**mapping(service, "status"), "conditions": ready, "numServeEndpoints": 1})

    def _cluster_of(self, owner: Document, spec: Document, *, submitter: bool) -> str:
        self._numbers += 1
        name = f"{name_of(owner)}-{self._numbers:05d}"
        namespace = namespace_of(owner)
        made = self.cluster.put(
            {
                "apiVersion": RAY_CLUSTER.api_version,
                "kind": RAY_CLUSTER.kind,
                "metadata": {"name": name, "namespace": namespace, "ownerReferences": [_owned_by(owner)]},
            },
            "kuberay",
        )
        self._pod(f"{name}-head", namespace, mapping(spec, "headGroupSpec", "template"), made, name)
        for group in documents(spec, "workerGroupSpecs"):
            for index in range(integer(group, "replicas")):
                self._pod(f"{name}-worker-{index}", namespace, mapping(group, "template"), made, name)
        if submitter:
            template = mapping(owner, "spec", "submitterPodTemplate")
            self._pod(f"{name_of(owner)}-submit-{self._numbers}", namespace, template, owner, "")
        return name

    def _pod(self, name: str, namespace: str, template: Document, owner: Document, cluster: str) -> None:
        labels = {**texts(template, "metadata", "labels"), **({"ray.io/cluster": cluster} if cluster else {})}
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
                "status": {"phase": "Running"},
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
        """Raise where a Deployment that had a ready variant has none."""
        for service in self.cluster.find(SERVICE):
            key = f"{namespace_of(service)}/{name_of(service)}"
            wanted = texts(service, "spec", "selector").get(REVISION_LABEL)
            ready = [
                replica
                for replica in self._replicas.values()
                if replica.namespace == namespace_of(service) and replica.revision == wanted and replica.can_answer
            ]
            if ready:
                self.served.add(key)
            elif key in self.served:
                raise AssertionError(f"no variant is ready any more behind Service {key}")


class Driver:
    """`python -m drivetrain.pipelines` on one head: claims, works, commits, reports."""

    def __init__(self, world: RayWorld, namespace: str, cluster: str, job: str) -> None:
        self.world, self.namespace, self.cluster_name, self.job = world, namespace, cluster, job
        self.grace = 2
        self.ended = ""
        self._claim: tuple[int, int] | None = None
        self._sequence = 0
        head = world.cluster.find(POD, namespace, {"ray.io/cluster": cluster})[0]
        self.run_uid = labels_of(head)[RUN_UID_LABEL]
        self.attempt = int(labels_of(head)[ATTEMPT_LABEL])
        self.run = labels_of(head)["drivetrain.dev/owner-name"]

    def step(self, now: datetime) -> None:
        """Claim first; then one stage a step; then the result."""
        if self.ended:
            return
        if self._claim is None and not self._claimed():
            return
        assert self._claim is not None
        if self.world.store.claims[self.run_uid] > self._claim:
            self.ended = "fenced"
            return
        done = self.world.store.work.get(self.run_uid, 0)
        if done >= 1 and self.world.script.flaky.get(self.run, 0) >= self.attempt:
            self.ended = "crashed"
            return
        if done < self.world.script.stages:
            self.world.store.commits.append((self.run_uid, *self._claim))
            self.world.store.work[self.run_uid] = done + 1
            self._report(now, done + 1, None)
            return
        self._report(now, done, self._result())
        self.ended = "ok"

    def _claimed(self) -> bool:
        """Claim the attempt with the number that the operator gave this very cluster; never replace a higher one."""
        config_map = self.world.cluster.read(self._report_ref)
        number, _, named = annotations_of(config_map or {}).get(INCARNATION_ANNOTATION, "").partition(" ")
        if named != self.cluster_name:
            return False
        claim = (self.attempt, int(number))
        if self.world.store.claims.get(self.run_uid, (0, 0)) > claim:
            self.ended = "fenced"
            return False
        other = self.world.store.claimed_by.setdefault((self.run_uid, *claim), self.cluster_name)
        assert other == self.cluster_name, f"{other} and {self.cluster_name} both claim {claim} of {self.run}"
        self.world.store.claims[self.run_uid] = claim
        self._claim = claim
        return True

    @property
    def _report_ref(self) -> Ref:
        return Ref(CONFIG_MAP, self.namespace, report_name("TrainingRun", self.run))

    def _result(self) -> RunResult:
        if self.run in self.world.script.results:
            return self.world.script.results[self.run]
        spec_map = self.world.cluster.read(Ref(CONFIG_MAP, self.namespace, f"{self.run}-spec"))
        spec = RunSpec.model_validate_json(texts(spec_map or {}, "data")["spec.json"])
        found = hashlib.sha256(self.run.encode()).hexdigest()
        return RunResult(
            state="Approved",
            version=version_of(self.run),
            digest=found,
            uri=f"{spec.data.store.uri}/models/{found}",
            project_uid=spec.project_uid,
            lever_effect="Experimental",
        )

    def _report(self, now: datetime, done: int, result: RunResult | None) -> None:
        assert self._claim is not None
        self._sequence += 1
        gates = (GateResult(name="logLoss", verdict="Passed"),) if result else ()
        report = TrainingReport(
            attempt=self.attempt,
            incarnation=self._claim[1],
            sequence=self._sequence,
            at=now,
            stage=f"stage-{done}",
            progress=Progress(percent=100 * done // (self.world.script.stages + 1)),
            data_version="d" * 32,
            data_rows=1000,
            gates=gates,
            result=result,
        )
        write_key(self.world.cluster, self._report_ref, self.cluster_name, canonical_json(report))


class Replica:
    """The endpoint of one RayService: one replica and its Monitor."""

    def __init__(self, world: RayWorld, namespace: str, service: str, cluster: str) -> None:
        self.world, self.namespace, self.service, self.cluster_name = world, namespace, service, cluster
        live = world.cluster.read(Ref(RAY_SERVICE, namespace, service))
        assert live is not None
        self.revision = labels_of(live)[REVISION_LABEL]
        self.deployment = labels_of(live)["drivetrain.dev/owner-name"]
        self.loaded: dict[str, Policy] = {}
        self.failed: dict[str, str] = {}
        self.config: EndpointConfig | None = None
        self._sequence = 0
        self._matured: dict[str, int] = {}

    @property
    def is_up(self) -> bool:
        """Whether it finished its first load."""
        return self.config is not None and self.config.stable in self.loaded

    @property
    def can_answer(self) -> bool:
        """Whether the stable variant is loaded."""
        return self.is_up

    def step(self, live: Document, now: datetime) -> None:
        """Take over the configuration, load what it names, gather evidence, report."""
        config = _user_config(live)
        first = self.config is None
        wanted = {config.stable, config.baseline, *config.load} | (
            {config.candidate} - {None} if config.candidate else set()
        )
        if not first:
            for hash_ in (config.stable, *((config.candidate,) if config.candidate else ())):
                assert hash_ in self.loaded, f"{self.service} is told to serve {hash_}, which it has not loaded"
        self.config = config
        policies = self.world.cluster.read(Ref(CONFIG_MAP, self.namespace, policies_name(self.deployment)))
        for hash_ in sorted(wanted):
            written = texts(policies or {}, "data").get(f"{hash_}.json")
            if hash_ in self.loaded or written is None:
                continue
            policy = Policy.model_validate_json(written)
            if policy.model and policy.model.version in self.world.script.missing_models:
                self.failed[hash_] = f"version {policy.model.version} is not in the store"
            else:
                self.loaded[hash_] = policy
        self._report(config, now)

    def _report(self, config: EndpointConfig, now: datetime) -> None:
        script = self.world.script
        stable = self.loaded.get(config.stable)
        rollout = None
        if config.candidate and config.rollout and stable is not None:
            seen = min(self.world.store.outcomes.get(config.rollout, 0) + script.per_step, 100 * script.per_step)
            self.world.store.outcomes[config.rollout] = seen
            estimate = self._effect(self.loaded[config.candidate]) - self._effect(stable)
            width = 2.0 / seen**0.5
            rollout = RolloutEvidence(
                rollout=config.rollout,
                stable=config.stable,
                candidate=config.candidate,
                weight=config.weight,
                outcomes_stable=seen,
                outcomes_candidate=seen,
                metrics=(
                    MetricEvidence(
                        metric="margin", role="Kpi", estimate=estimate, lower=estimate - width, upper=estimate + width
                    ),
                ),
            )
        matured = min(self._matured.get(config.stable, 0) + script.per_step, 50 * script.per_step)
        self._matured[config.stable] = matured
        self._sequence += 1
        report = ServingReport(
            sequence=1,
            at=datetime(2026, 1, 1, tzinfo=now.tzinfo),
            replicas=1,
            weight=config.weight,
            stable=config.stable,
            loads=tuple(
                [PolicyLoad(hash=each, state="Loaded", replicas=1) for each in sorted(self.loaded)]
                + [
                    PolicyLoad(hash=each, state="Failed", reason="ModelNotFound", message=why)
                    for each, why in sorted(self.failed.items())
                ]
            )[:8],
            rollout=rollout,
            drift=self._drift(config, stable, matured),
            kpi=KpiEvidence(mean=self._effect(stable), decisions=1000) if stable else None,
            matured=1000,
            explored=1000,
            explored_since_change=1000,
        )
        ref = Ref(CONFIG_MAP, self.namespace, report_name("Deployment", self.deployment))
        write_key(self.world.cluster, ref, self.cluster_name, canonical_json(report))

    def _effect(self, policy: Policy) -> float:
        """Of the model; fewer prices to choose from help a little more."""
        if policy.model is None:
            return 0.0
        bonus = 0.2 if len(policy.levers[0].values()) < 9 else 0.0
        return self.world.script.effects.get(policy.model.version, 0.1) + bonus

    def _drift(self, config: EndpointConfig, stable: Policy | None, matured: int) -> DriftEvidence | None:
        version = stable.model.version if stable and stable.model else None
        limit = self.world.script.drifts_after.get(version or "")
        if limit is None or matured < limit or config.candidate is not None:
            return DriftEvidence()
        since = datetime.fromisoformat(config.stable_since or "") + timedelta(seconds=30)
        return DriftEvidence(
            calibration=DetectorEvidence(severity="Severe", message="Residuals moved.", changed_at=since)
        )


def version_of(run: str) -> str:
    """The version that the registry gives to what a run publishes."""
    return f"v-{run}"


def write_key(cluster: FakeCluster, ref: Ref, writer: str, content: str) -> None:
    """Write one key of a report as its writer does; nothing where the ConfigMap does not exist (yet, or any more)."""
    live = cluster.read(ref)
    if live is None or texts(live, "data").get(writer) == content:
        return
    data = {**texts(live, "data"), writer: content}
    cluster.put({**live, "data": data}, writer)


def _user_config(service: Document) -> EndpointConfig:
    serve = json.loads(text(service, "spec", "serveConfigV2"))
    configs = {each["name"]: each["user_config"] for each in serve["applications"][0]["deployments"]}
    assert configs["Endpoint"] == configs["Monitor"]
    return EndpointConfig.model_validate(configs["Endpoint"])


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
