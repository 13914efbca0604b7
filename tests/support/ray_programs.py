"""What runs on Ray in a simulated world: drivers that train, replicas that serve and report.

What the real ones keep on S3 (claims, committed work, rollout evidence) lies in `Store` and survives every crash.
"""

import hashlib
import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from drivetrain.api.canonical import canonical_json
from drivetrain.api.documents import Document, annotations_of, labels_of, text, texts
from drivetrain.api.kinds import CONFIG_MAP, POD, RAY_SERVICE, Ref
from drivetrain.api.names import (
    ATTEMPT_LABEL,
    INCARNATION_ANNOTATION,
    OWNER_NAME_LABEL,
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
    ShadowEvidence,
    TrainingReport,
)
from drivetrain.api.runspec import RunSpec
from drivetrain.api.v1alpha1.trainingrun import GateResult, Progress
from drivetrain.serving.pacing import LONGEST
from tests.support.fake_cluster import FakeCluster

DATA_STAGES = 2
"""Of a run that asks for GPUs: its first job ends with them."""


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
    shadowed: dict[str, int] = field(default_factory=dict)
    """Rollout to decisions that its candidate made without traffic."""
    weighted: set[str] = field(default_factory=set)
    """Versions that had traffic as a candidate."""
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
    stranded: dict[str, int] = field(default_factory=dict)
    """Run to the number of attempts that do not reach the store."""
    stages: int = 3
    drifts_after: dict[str, int] = field(default_factory=dict)
    """Model version to the outcomes after which its calibration drifts severely."""
    missing_models: set[str] = field(default_factory=set)
    """Versions whose graph no replica finds."""
    broken_models: set[str] = field(default_factory=set)
    """Versions whose model raises an error on real rows."""
    per_step: int = 150


@dataclass
class Site:
    """What every program reaches."""

    cluster: FakeCluster
    store: Store
    script: Script


class Driver:
    """`python -m drivetrain.pipelines` on one head: claims, works, commits, reports."""

    def __init__(self, site: Site, namespace: str, cluster: str, job: str) -> None:
        self.site, self.namespace, self.cluster_name, self.job = site, namespace, cluster, job
        self.grace = 2
        self.ended = ""
        self._claim: tuple[int, int] | None = None
        self._sequence = 0
        head = site.cluster.find(POD, namespace, {"ray.io/cluster": cluster})[0]
        self.run_uid = labels_of(head)[RUN_UID_LABEL]
        self.attempt = int(labels_of(head)[ATTEMPT_LABEL])
        self.run = labels_of(head)[OWNER_NAME_LABEL]

    def step(self, now: datetime) -> None:
        """Claim first; then one stage a step; then the result."""
        if self.ended:
            return
        if self._claim is None and not self._claimed():
            return
        assert self._claim is not None
        if self.site.store.claims[self.run_uid] > self._claim:
            self.ended = "fenced"
            return
        done = self.site.store.work.get(self.run_uid, 0)
        if done >= 1 and self.site.script.flaky.get(self.run, 0) >= self.attempt:
            self.ended = "crashed"
            return
        if done >= 1 and self.site.script.stranded.get(self.run, 0) >= self.attempt:
            self._report(now, done, RunResult(state="Failed", reason="StoreUnavailable", message="It did not answer."))
            self.ended = "failed"
            return
        if done < (DATA_STAGES if self._prepares else self.site.script.stages):
            self.site.store.commits.append((self.run_uid, *self._claim))
            self.site.store.work[self.run_uid] = done + 1
            self._report(now, done + 1, None)
            return
        self._report(now, done, self._result())
        self.ended = "ok"

    def _claimed(self) -> bool:
        """Claim the attempt with the number that the operator gave this very cluster; never replace a higher one."""
        config_map = self.site.cluster.read(self._report_ref)
        number, _, named = annotations_of(config_map or {}).get(INCARNATION_ANNOTATION, "").partition(" ")
        if named != self.cluster_name:
            return False
        claim = (self.attempt, int(number))
        if self.site.store.claims.get(self.run_uid, (0, 0)) > claim:
            self.ended = "fenced"
            return False
        other = self.site.store.claimed_by.setdefault((self.run_uid, *claim), self.cluster_name)
        assert other == self.cluster_name, f"{other} and {self.cluster_name} both claim {claim} of {self.run}"
        self.site.store.claims[self.run_uid] = claim
        self._claim = claim
        return True

    @property
    def _report_ref(self) -> Ref:
        return Ref(CONFIG_MAP, self.namespace, report_name("TrainingRun", self.run))

    @property
    def _prepares(self) -> bool:
        """Whether it ends with the data stages."""
        return self.job.endswith("-p")

    def _result(self) -> RunResult:
        if self._prepares:
            return RunResult(state="Prepared")
        if self.run in self.site.script.results:
            return self.site.script.results[self.run]
        spec_map = self.site.cluster.read(Ref(CONFIG_MAP, self.namespace, f"{self.run}-spec"))
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
            progress=Progress(percent=100 * done // (self.site.script.stages + 1)),
            data_version="d" * 32,
            data_rows=1000,
            gates=gates,
            result=result,
        )
        write_key(self.site.cluster, self._report_ref, self.cluster_name, canonical_json(report))


class Replica:
    """The endpoint of one RayService: one replica and its Monitor."""

    def __init__(self, site: Site, namespace: str, service: str, cluster: str) -> None:
        self.site, self.namespace, self.service, self.cluster_name = site, namespace, service, cluster
        live = site.cluster.read(Ref(RAY_SERVICE, namespace, service))
        assert live is not None
        self.revision = labels_of(live)[REVISION_LABEL]
        self.deployment = labels_of(live)[OWNER_NAME_LABEL]
        self.loaded: dict[str, Policy] = {}
        self.failed: dict[str, str] = {}
        self.config: EndpointConfig | None = None
        self._told: ServingReport | None = None
        self._matured: dict[str, int] = {}

    @property
    def is_up(self) -> bool:
        """Whether the stable variant is loaded."""
        return self.config is not None and self.config.stable in self.loaded

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
        policies = self.site.cluster.read(Ref(CONFIG_MAP, self.namespace, policies_name(self.deployment)))
        for hash_ in sorted(wanted):
            written = texts(policies or {}, "data").get(f"{hash_}.json")
            if hash_ in self.loaded or written is None:
                continue
            policy = Policy.model_validate_json(written)
            if policy.model and policy.model.version in self.site.script.missing_models:
                self.failed[hash_] = f"version {policy.model.version} is not in the store"
            else:
                self.loaded[hash_] = policy
        self._report(config, now)

    def _report(self, config: EndpointConfig, now: datetime) -> None:
        script = self.site.script
        stable = self.loaded.get(config.stable)
        rollout = None
        if config.candidate and config.rollout and stable is not None and config.weight == 0:
            rollout = self._shadowed(config, config.candidate, config.rollout)
        elif config.candidate and config.rollout and stable is not None:
            candidate = self.loaded[config.candidate].model
            self.site.store.weighted |= {candidate.version} if candidate else set()
            seen = min(self.site.store.outcomes.get(config.rollout, 0) + script.per_step, 100 * script.per_step)
            self.site.store.outcomes[config.rollout] = seen
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
        report = ServingReport(
            sequence=1,
            at=now,
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
        last = self._told
        if last is not None and now - last.at < LONGEST and report.model_copy(update={"at": last.at}) == last:
            report = last
        self._told = report
        ref = Ref(CONFIG_MAP, self.namespace, report_name("Deployment", self.deployment))
        write_key(self.site.cluster, ref, self.cluster_name, canonical_json(report))

    def _shadowed(self, config: EndpointConfig, candidate: str, rollout: str) -> RolloutEvidence:
        """What a candidate without weight does: nothing that matures."""
        store, model = self.site.store, self.loaded[candidate].model
        seen = store.shadowed[rollout] = min(store.shadowed.get(rollout, 0) + self.site.script.per_step, 1500)
        broken = model is not None and model.version in self.site.script.broken_models
        return RolloutEvidence(
            rollout=rollout,
            stable=config.stable,
            candidate=candidate,
            weight=0,
            outcomes_stable=0,
            outcomes_candidate=0,
            shadow=ShadowEvidence(decisions=seen, failed=seen if broken else 0, milliseconds=1.0),
        )

    def _effect(self, policy: Policy) -> float:
        """Of the model; fewer prices to choose from help a little more."""
        if policy.model is None:
            return 0.0
        bonus = 0.2 if len(policy.levers[0].values()) < 9 else 0.0
        return self.site.script.effects.get(policy.model.version, 0.1) + bonus

    def _drift(self, config: EndpointConfig, stable: Policy | None, matured: int) -> DriftEvidence | None:
        version = stable.model.version if stable and stable.model else None
        limit = self.site.script.drifts_after.get(version or "")
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
