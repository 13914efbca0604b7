"""The status of a Deployment: a view of its ledger, its clusters and the Monitor's report."""

from dataclasses import dataclass
from datetime import datetime

from drivetrain.api.documents import Document, annotations_of, integer, mapping, name_of, namespace_of, uid_of
from drivetrain.api.ledger import DeploymentLedger
from drivetrain.api.meta import Condition
from drivetrain.api.names import ENDPOINT_URL_ANNOTATION
from drivetrain.api.report import MONITOR_FAILED, RUNS_ON_CPU, DriftEvidence, KpiEvidence, ServingReport
from drivetrain.api.v1alpha1.deployment import (
    AnalysisStatus,
    Deployment,
    DeploymentStatus,
    DriftStatus,
    IntervalStatus,
    RejectedVariant,
    Variant,
)
from drivetrain.api.v1alpha1.project import KpiStatus
from drivetrain.controller.core import applications, attempts, records, serving_pods, shadowing, silence
from drivetrain.controller.core.conditions import Fact, clipped, condition, conditions, reason_of, settled
from drivetrain.controller.core.observations import DeploymentObserved
from drivetrain.controller.core.policies import champion_version, stable_policy
from drivetrain.controller.core.revisions import Clusters, is_overdue
from drivetrain.controller.core.rollout import Look, judged, weight_of
from drivetrain.controller.core.verdicts import Verdict
from drivetrain.controller.manifests.ray_service import HTTP_PORT, most_replicas, replica_selector

SEVERITIES = ("None", "Warn", "Severe")


@dataclass(frozen=True, slots=True)
class View:
    """Everything that the status tells."""

    observed: DeploymentObserved
    deployment: Deployment
    ledger: DeploymentLedger
    look: Look
    report: ServingReport | None
    clusters: Clusters
    fault: Fact | None

    @property
    def serves(self) -> bool:
        """Whether the variant that is meant to serve does."""
        return self.answers and not self.is_waiting_for_pinned

    @property
    def answers(self) -> bool:
        """Whether the cluster that clients reach has a replica for them."""
        return self.clusters.ready(self.ledger.revision) and serving_pods.answer(
            self.observed.pods, self.ledger.revision
        )

    @property
    def is_waiting_for_pinned(self) -> bool:
        """Whether a pinned version has never served: today's policy is no answer on /v2."""
        stable = self.ledger.stable
        return self.deployment.spec.model is not None and (stable is None or stable.hash == self.ledger.baseline)

    @property
    def application_failure(self) -> Fact | None:
        """Why Serve gave up an application of the cluster that serves, or is to serve first."""
        return applications.failure(self.service(self.ledger.revision or self.ledger.pending_revision))

    def service(self, revision: str | None) -> Document | None:
        """The RayService of a revision."""
        return records.service_of(revision, self.observed.ray_services)

    @property
    def rejection(self) -> RejectedVariant | None:
        """The rejection of the very policy that is wanted now."""
        target = self.look.target
        return next((each for each in self.ledger.rejected if target and each.hash == target.hash), None)


def deployment_status(view: View, now: datetime) -> DeploymentStatus:
    """The status of a Deployment that has children."""
    found, why = _conditions(view, now)
    ledger, report = view.ledger, view.report
    weight = weight_of(ledger, view.deployment.spec.rollout)
    candidate = ledger.candidate
    return DeploymentStatus(
        observed_generation=view.deployment.metadata.generation,
        conditions=settled(view.observed.owner, found, now),
        url=_url(view.observed.owner, view.service(ledger.revision)),
        replicas=report.replicas if report else 0,
        selector=_selector(view.observed.owner, ledger.revision),
        stable=_variant(ledger, ledger.stable.hash, ledger.stable.since) if ledger.stable else None,
        candidate=_variant(ledger, candidate.hash, candidate.since) if candidate else None,
        weight=weight,
        step=candidate.step if candidate and candidate.phase == "Weighted" else None,
        rejected=ledger.rejected[:10],
        analysis=_analysis(view),
        drift=drift_status(report.drift) if report and report.drift else None,
        kpi=kpi_status(report.kpi, ledger) if report and report.kpi else None,
        why=clipped(why),
    )


def stalled_status(
    observed: DeploymentObserved, ledger: DeploymentLedger, report: ServingReport | None, why: Fact, now: datetime
) -> DeploymentStatus:
    """The status of a Deployment whose specs mean nothing now: ledger, cluster and report still tell what serves."""
    owner, service = observed.owner, records.service_of(ledger.revision, observed.ray_services)
    serves = records.is_true(service, "Ready") and serving_pods.answer(observed.pods, ledger.revision)
    ready = Fact("Serving", "The stable variant serves on.") if serves else why
    return DeploymentStatus(
        observed_generation=integer(owner, "metadata", "generation"),
        conditions=settled(owner, conditions(ready=serves, why=ready, stalled=why), now),
        url=_url(owner, service),
        replicas=report.replicas if report else 0,
        selector=_selector(owner, ledger.revision),
        stable=_variant(ledger, ledger.stable.hash, ledger.stable.since) if ledger.stable else None,
        candidate=_variant(ledger, ledger.candidate.hash, ledger.candidate.since) if ledger.candidate else None,
        rejected=ledger.rejected[:10],
        drift=drift_status(report.drift) if report and report.drift else None,
        kpi=kpi_status(report.kpi, ledger) if report and report.kpi else None,
        why=clipped(why.message),
    )


def kpi_status(kpi: KpiEvidence, serving: DeploymentLedger) -> KpiStatus:
    """The KPI as status shows it, in the unit of the objective that serves."""
    stable = stable_policy(serving)
    return KpiStatus(
        mean=significant(kpi.mean),
        lower=None if kpi.lower is None else significant(kpi.lower),
        upper=None if kpi.upper is None else significant(kpi.upper),
        versus_holdout=None if kpi.versus_holdout is None else significant(kpi.versus_holdout),
        decisions=kpi.decisions,
        unit=stable.objective.kpi.unit if stable else "",
    )


def significant(number: float) -> float:
    """The number with four digits, as a person reads it; verdicts are drawn from all of them."""
    return float(f"{number:.4g}")


def drift_status(drift: DriftEvidence) -> DriftStatus:
    """The detectors as status shows them."""
    worst = max((drift.covariate, drift.calibration, drift.kpi), key=lambda each: SEVERITIES.index(each.severity))
    return DriftStatus(
        severity=worst.severity,
        covariate=drift.covariate.message,
        calibration=drift.calibration.message,
        kpi=drift.kpi.message,
    )


def _conditions(view: View, now: datetime) -> tuple[tuple[Condition, ...], str]:
    """The conditions, and in a sentence why it waits or failed."""
    ledger = view.ledger
    others: list[Condition] = []
    if view.deployment.spec.queue is not None and not view.observed.queued:
        told = "Kueue does not queue RayServices here; the namespace's ResourceQuota bounds serving."
        others.append(condition("Queued", "False", Fact("QueueingUnsupported", told)))
    slow = next((load for load in view.report.loads if load.reason == RUNS_ON_CPU), None) if view.report else None
    if slow is not None:
        others.append(condition("Accelerated", "False", Fact(RUNS_ON_CPU, slow.message)))
    if view.report and view.report.drift and view.report.drift.miscalibrated:
        told = (
            "Predictions are off by more than the tolerance since the promotion; drift is judged against that offset."
        )
        others.append(condition("Miscalibrated", "True", Fact("OffsetBeyondTolerance", told)))
    progress = _progress(view)
    if progress is not None:
        others.append(condition("Progressing", "True", progress))
    degraded = _degraded(view, now)
    if degraded is not None:
        others.append(condition("Degraded", "True", degraded))
    if not view.serves and view.fault is None:
        starting = _starting(view, now)
        stalled = starting.reason not in ("Starting", "Loading")
        state = conditions(
            ready=False,
            why=starting,
            reconciling=None if stalled else starting,
            stalled=starting if stalled else None,
        )
        return (*state, *others), starting.message
    champion = champion_version(ledger)
    name = "today's policy" if champion is None else f"version {champion}"
    why = Fact("Serving", f"Serves {name}.") if view.serves else view.fault
    assert why is not None
    stalled_by = view.fault or _unknown_model(view)
    waits = progress if stalled_by is None else None
    concern = stalled_by or progress or degraded
    state = conditions(ready=view.serves, why=why, reconciling=waits, stalled=stalled_by)
    return (*state, *others), concern.message if concern else ""


def _starting(view: View, now: datetime) -> Fact:
    """Why nothing answers yet."""
    reason, told = attempts.trouble(view.observed.pods)
    if reason == "CreateContainerConfigError" and "secret" in told.lower():
        return Fact("SecretMissing", f"{told}. Create the Secret with the keys that store and auth name.")
    if view.rejection is not None:
        return Fact(_load_reason(view.rejection), view.rejection.message)
    if view.answers:
        return Fact("Loading", "The endpoint is up and loads the pinned version.")
    if (failure := view.application_failure) is not None:
        return failure
    told = told or attempts.unschedulable(view.observed.pods)
    if not told and (unmounted := attempts.unmounted(view.observed.pods, now)):
        return Fact("VolumesMissing", unmounted)
    told = told or applications.progress(view.service(view.ledger.revision or view.ledger.pending_revision))
    if not told and (headless := serving_pods.headless(view.observed.pods, view.ledger.revision)) is not None:
        told = headless.message
    reason = "ClusterNotReady" if is_overdue(view.ledger, now) else "Starting"
    return Fact(reason, told or "The Ray cluster of the endpoint is starting.")


def _progress(view: View) -> Fact | None:
    """What is under way."""
    ledger, candidate = view.ledger, view.ledger.candidate
    if candidate is not None:
        if view.look.evidence is not None and view.look.evidence.halted:
            return Fact(reason_of(view.look.evidence.halted, "Halted"), view.look.evidence.message or "Halted.")
        if view.look.paused:
            return Fact("Paused", "Paused by annotation; harm still rejects.")
        if candidate.phase == "Loading":
            return Fact("Loading", f"Replicas load candidate {candidate.hash}.")
        rollout = view.deployment.spec.rollout
        if candidate.phase == "Shadow":
            told = f" {shadowing.told(view.look.shadow, rollout.shadow)}" if rollout.shadow is not None else ""
            serves = "decides beside the stable version and serves nothing."
            return Fact("Shadowing", f"Candidate {candidate.hash} {serves}{told}")
        weight = weight_of(ledger, rollout)
        message = view.look.evidence.message if view.look.evidence else ""
        return Fact("RollingOut", f"Candidate {candidate.hash} gets {weight} % of units. {message}".strip())
    if ledger.revision is not None and ledger.pending_revision is not None:
        service = view.service(ledger.pending_revision)
        failure = applications.failure(service)
        told = failure.message if failure else applications.progress(service)
        being = f"Cluster {ledger.pending_revision} is being made ready beside the one that serves. {told}"
        return Fact("ReplacingCluster", being.strip())
    if ledger.revision is not None and (told := attempts.unschedulable(view.observed.pods)):
        answering, wanted = view.report.replicas if view.report else 0, most_replicas(view.deployment.spec)
        return Fact("Scaling", f"{answering} of at most {wanted} replicas answer. {told}")
    return None


def _degraded(view: View, now: datetime) -> Fact | None:
    """What is not as wanted although the stable variant serves."""
    headless = serving_pods.headless(view.observed.pods, view.ledger.revision)
    if headless is not None:
        return headless
    if (silent := _silent(view, now)) is not None:
        return silent
    trouble = view.report.trouble if view.report else None
    if trouble is not None and trouble.reason == MONITOR_FAILED:
        told = "It tries again twice a minute; decisions and outcomes are taken meanwhile, and no evidence counts."
        return Fact(MONITOR_FAILED, f"The endpoint's Monitor failed: {trouble.message.rstrip('.')}. {told}")
    if trouble is not None:
        told = "Decisions are answered meanwhile and kept in the journal; outcomes are refused, and no evidence counts."
        return Fact(reason_of(trouble.reason, "MonitorTroubled"), f"{trouble.message} {told}")
    rejection = view.rejection
    if rejection is not None:
        return Fact("CandidateRejected", f"{rejection.reason}: {rejection.message}")
    if view.ledger.failed_revision == view.clusters.desired:
        told = "The changed cluster did not become ready in time; the old one serves on. Change the spec to try again."
        return Fact("ClusterNotReady", told)
    return view.fault or view.application_failure


def _silent(view: View, now: datetime) -> Fact | None:
    """Since when nothing was heard of the Monitor, where it is overdue."""
    report = view.report
    expected = silence.due(view.ledger, view.service(view.ledger.revision), report)
    if expected is None or now < expected:
        return None
    last = f"has not reported since {report.at:%Y-%m-%d %H:%M:%S} UTC" if report else "has never reported"
    told = "Decisions are answered meanwhile; drift and KPI start no training, and no rollout begins."
    return Fact("MonitorSilent", f"The endpoint's Monitor {last}. {told} A node whose clock is behind looks alike.")


def _unknown_model(view: View) -> Fact | None:
    """A version that does not exist stalls, because nothing but another spec can help."""
    rejection = view.rejection
    if rejection is None or rejection.reason != "LoadFailed" or _load_reason(rejection) != "ModelNotFound":
        return None
    return Fact("ModelNotFound", rejection.message)


def _load_reason(rejection: RejectedVariant) -> str:
    """The replicas' own reason, which the message of a LoadFailed begins with."""
    return reason_of(rejection.message.partition(":")[0], rejection.reason)


def _selector(owner: Document, revision: str | None) -> str | None:
    """Of the Pods that hold replicas; None where Serve itself moves their number, so that no autoscaler joins in."""
    if revision is None or mapping(owner, "spec", "autoscaling"):
        return None
    return replica_selector(uid_of(owner), revision)


def _url(owner: Document, service: Document | None) -> str | None:
    if service is None:
        return None
    stated = annotations_of(service).get(ENDPOINT_URL_ANNOTATION)
    return stated or f"http://{name_of(owner)}.{namespace_of(owner)}.svc:{HTTP_PORT}"


def _variant(ledger: DeploymentLedger, hash_: str, since: datetime | None) -> Variant:
    policy = ledger.policies.get(hash_)
    return Variant(hash=hash_, version=policy.model.version if policy and policy.model else None, since=since)


def _analysis(view: View) -> AnalysisStatus | None:
    evidence, found, candidate = view.look.evidence, judged(view.ledger, view.look), view.ledger.candidate
    if evidence is None or found is None or (candidate is not None and candidate.phase == "Shadow"):
        return None
    return AnalysisStatus(
        outcomes_stable=evidence.outcomes_stable,
        outcomes_candidate=evidence.outcomes_candidate,
        intervals=tuple(_interval(each) for each in found.all),
        projected_verdict_at=evidence.projected_verdict_at,
        message=evidence.message,
    )


def _interval(verdict: Verdict) -> IntervalStatus:
    """As reported; of a bound, the candidate's own mean beside it."""
    value = verdict.bound.value if verdict.bound else 0.0
    return IntervalStatus(
        metric=verdict.metric,
        bound=value if verdict.bound else None,
        estimate=significant(verdict.evidence.estimate + value),
        lower=significant(verdict.evidence.lower + value),
        upper=significant(verdict.evidence.upper + value),
        verdict=verdict.word,
    )
