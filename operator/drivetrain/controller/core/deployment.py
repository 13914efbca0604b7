"""The decision about one Deployment: its cluster, its rollout, and what its replicas are told."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from drivetrain.api.canonical import digest
from drivetrain.api.documents import (
    Document,
    annotations_of,
    labels_of,
    name_of,
    namespace_of,
    texts,
    uid_of,
)
from drivetrain.api.errors import InvalidSpecError
from drivetrain.api.kinds import CONFIG_MAP, DEPLOYMENT, RAY_CLUSTER, RAY_SERVICE, Ref
from drivetrain.api.ledger import DeploymentLedger, PinnedVersion, ProjectLedger, RunLedger, StableVariant
from drivetrain.api.names import (
    ABORT_ANNOTATION,
    CLUSTER_LABEL,
    PAUSE_ANNOTATION,
    PROMOTE_ANNOTATION,
    RENEW_IMAGE_ANNOTATION,
    RETRY_ANNOTATION,
    REVISION_LABEL,
    ledger_name,
    report_name,
)
from drivetrain.api.policy import EndpointConfig, Policy, policy_hash
from drivetrain.api.report import PolicyLoad, ServingReport
from drivetrain.api.v1alpha1.deployment import Deployment
from drivetrain.api.v1alpha1.lever import Exploration
from drivetrain.api.v1alpha1.project import DrivetrainProject, VersionReference
from drivetrain.api.validation import validate_deployment, validate_project
from drivetrain.controller.core import attempts, milestones, records, silence
from drivetrain.controller.core.conditions import (
    KUBERAY_MISSING,
    Fact,
    check,
    is_deleting,
    is_inherited,
    is_owned,
    parse,
    stalled_plan,
    transition,
    unanswered,
)
from drivetrain.controller.core.deployment_view import View, deployment_status, stalled_status
from drivetrain.controller.core.observations import DeploymentObserved
from drivetrain.controller.core.ownership import only_own
from drivetrain.controller.core.plan import LATE, RETRY, Apply, Delete, Effect, Plan
from drivetrain.controller.core.policies import champion_of, policy_of, same_version
from drivetrain.controller.core.revisions import (
    DRAIN,
    PENDING_WITHIN,
    Clusters,
    live_config,
    revised,
    to_keep,
)
from drivetrain.controller.core.rollout import Look, Target, advance, is_loaded, weight_of
from drivetrain.controller.core.scaling import resized
from drivetrain.controller.core.seniority import eldest
from drivetrain.controller.core.support import unsupported
from drivetrain.controller.manifests import records as manifests
from drivetrain.controller.manifests.metadata import Owner
from drivetrain.controller.manifests.network import network_policy
from drivetrain.controller.manifests.ray_cluster import Runtime
from drivetrain.controller.manifests.ray_service import (
    cluster_config,
    ray_service,
    reconfigured,
    revision_of,
    serve_config,
    service,
    with_workers,
    workers_in,
)
from drivetrain.controller.manifests.settings import Settings


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What the specs ask for."""

    baseline: Policy
    target: Target | None
    fault: Fact | None
    """Why the target cannot be known."""
    pinned: PinnedVersion | None = None


def decide(observed: DeploymentObserved, now: datetime, settings: Settings) -> Plan:
    """Decide about a Deployment: total, pure."""
    if is_deleting(observed.owner):
        return Plan()
    if is_inherited(observed.owner, observed.live.get(refs_of(observed.owner).ledger)):
        return Plan(wake_after=LATE)
    try:
        deployment = parse(Deployment, observed.owner)
        project = parse(DrivetrainProject, observed.project) if observed.project else None
        if project is not None:
            check(validate_project(project), of=f"DrivetrainProject {project.metadata.name}")
        check(validate_deployment(deployment, project))
    except InvalidSpecError as error:
        return _stalled(observed, Fact(InvalidSpecError.reason, error.message), now)
    served = project_of(deployment)
    winner = eldest(observed.rivals) if deployment.spec.project is not None else None
    if winner is not None and uid_of(winner) != uid_of(observed.owner):
        told = f"Deployment {name_of(winner)} serves project {served} already. Delete one of the two."
        return stalled_plan(observed.owner, Fact("ProjectAlreadyServed", told), now)
    if project is None:
        told = f"DrivetrainProject {served} does not exist: create it or name another."
        return replace(_stalled(observed, Fact("ProjectNotFound", told), now), wake_after=RETRY)
    if not observed.kuberay:
        return replace(_stalled(observed, KUBERAY_MISSING, now), wake_after=RETRY)
    plan = _serve(observed, deployment, project, now, settings)
    return only_own(plan, observed, lambda why: _stalled(observed, why, now), refs_of(observed.owner).ledger)


def _stalled(observed: DeploymentObserved, why: Fact, now: datetime) -> Plan:
    """Say what is wrong and touch nothing: what serves already goes on serving, and Ready says so."""
    refs = refs_of(observed.owner)
    ledger = records.ledger(DeploymentLedger, observed.live.get(refs.ledger))
    report = records.current_serving_report(ledger, observed.live.get(refs.report), observed.ray_services)
    status = stalled_status(observed, ledger, report, why, now)
    return Plan(
        effects=transition(observed.owner, status.conditions),
        status=status.model_dump(mode="json", by_alias=True, exclude_none=True),
    )


def project_of(deployment: Deployment) -> str:
    """The project whose policies are served: the one named, or the one that a pinned model belongs to."""
    return deployment.spec.project or (deployment.spec.model.name if deployment.spec.model else "")


def _serve(
    observed: DeploymentObserved, deployment: Deployment, project: DrivetrainProject, now: datetime, settings: Settings
) -> Plan:
    owner = Owner.of(observed.owner, project.metadata.name)
    refs = refs_of(observed.owner)
    before = records.ledger(DeploymentLedger, observed.live.get(refs.ledger))
    owned = is_owned(observed.owner, observed.live.get(refs.ledger))
    if owned and deployment.metadata.generation < before.rendered_generation:
        return Plan(wake_after=LATE)
    wanted = _wanted(observed, deployment, project, before)
    if wanted.fault is not None and before.stable is None:
        return _stalled(observed, wanted.fault, now)  # nothing serves yet, and nothing else was asked for
    ledger = _rendered(before, deployment, observed.owner, settings).model_copy(update={"pinned": wanted.pinned})
    runtime = Runtime.of(deployment.spec.cluster, ledger.runtime or settings.runtime)
    if (fault := unsupported(runtime)) is not None:
        return _stalled(observed, fault, now)
    config = cluster_config(owner, deployment.spec, project.spec.data.store, runtime)
    clusters = Clusters(revision_of(config), observed.ray_services)
    report = records.current_serving_report(ledger, observed.live.get(refs.report), observed.ray_services)
    loads = {load.hash: load for load in report.loads} if report else {}

    ledger = revised(ledger, clusters, now)
    ledger = _with_baseline(ledger, wanted.baseline, wanted.target, loads, now)
    may_start = (
        ledger.pending_revision is None
        and policy_hash(wanted.baseline) == ledger.baseline
        and clusters.ready(ledger.revision)
        and report is not None
        and not silence.is_silent(report, now)
    )
    look = _look(deployment, project, wanted.target, ledger, report, may_start=may_start, owner=observed.owner)
    if wanted.fault is None:
        ledger = advance(ledger, look, now)
    ledger = _pruned(ledger, policy_hash(wanted.baseline), wanted.target)

    endpoint = endpoint_config(owner, deployment, project, ledger)
    rights = manifests.reporters(owner, settings.pull_secrets, observed.live)
    effects: list[Effect] = [Apply(each) for each in rights]
    effects.append(Apply(network_policy(owner, project.spec.data, None, settings.api_ports)))
    effects.append(Apply(manifests.report(owner, emptied=_gone(observed, ledger))))
    effects.append(Apply(manifests.policies(owner, ledger.policies)))
    for revision in sorted({each for each in (ledger.revision, ledger.pending_revision) if each}):
        live = records.service_of(revision, observed.ray_services)
        if live is None or revision == clusters.desired:
            stated, serve = config, serve_config(deployment.spec, endpoint)
        else:
            stated = with_workers(live_config(live), deployment.spec)
            serve = reconfigured(live, deployment.spec, endpoint)
        each = ray_service(owner, deployment.spec, stated, serve, revision, queued=observed.queued)
        effects.append(Apply(each))
        effects += _sizes(observed, live, workers_in(stated))
    if (selected := ledger.revision or ledger.pending_revision) is not None:
        effects.append(Apply(service(owner, selected)))
    kept = to_keep(ledger, now)
    for each in observed.ray_services:
        if kept is not None and labels_of(each).get(REVISION_LABEL) not in kept:
            effects.append(Delete(RAY_SERVICE, owner.namespace, name_of(each), uid_of(each)))
    view = View(observed, deployment, ledger, look, report, clusters, wanted.fault)
    status = deployment_status(view, now)
    told = ("Ready", "Degraded", "Progressing", "Miscalibrated")
    events = (
        *milestones.of_deployment(observed.owner, status),
        *transition(observed.owner, status.conditions, *told),
    )
    return Plan(
        ledger=Apply(manifests.ledger(owner, ledger)) if ledger != before else None,
        effects=(*effects, *events),
        status=status.model_dump(mode="json", by_alias=True, exclude_none=True),
        wake_after=_wake_after(observed, ledger, deployment, report, now),
    )


@dataclass(frozen=True, slots=True)
class DeploymentRefs:
    """Names of the records of a Deployment."""

    ledger: Ref
    report: Ref


def refs_of(owner: Document) -> DeploymentRefs:
    """The records of this Deployment."""
    namespace, name = namespace_of(owner), name_of(owner)
    return DeploymentRefs(
        ledger=Ref(CONFIG_MAP, namespace, ledger_name(DEPLOYMENT.kind, name)),
        report=Ref(CONFIG_MAP, namespace, report_name(DEPLOYMENT.kind, name)),
    )


def endpoint_config(
    owner: Owner, deployment: Deployment, project: DrivetrainProject, ledger: DeploymentLedger
) -> EndpointConfig:
    """What replicas are told: references and numbers."""
    spec = deployment.spec
    assert ledger.stable is not None
    assert ledger.baseline is not None
    candidate, pinned = ledger.candidate, spec.model is not None
    since = ledger.stable.since
    return EndpointConfig(
        stable=ledger.stable.hash,
        candidate=candidate.hash if candidate and candidate.phase != "Loading" else None,
        baseline=ledger.baseline,
        load=tuple(sorted(ledger.policies.keys() - {ledger.stable.hash, ledger.baseline})),
        weight=weight_of(ledger, spec.rollout),
        holdout=0 if pinned else spec.rollout.holdout,
        salt=owner.uid,
        rollout=candidate.rollout if candidate else None,
        stable_since=since.isoformat() if since else None,
        exploration=Exploration(share=0) if pinned else project.spec.exploration,
        fallback=spec.fallback,
        analysis=spec.rollout.analysis,
        monitoring=spec.monitoring,
        pinned=pinned or None,
    )


def _rendered(
    ledger: DeploymentLedger, deployment: Deployment, owner: Document, settings: Settings
) -> DeploymentLedger:
    """Keep the default image that this spec was first rendered with: an operator upgrade replaces no cluster.

    A new number of replicas is no other spec. Nor is one that reads differently in its old generation, or differs in
    defaults alone: those are of an upgrade.
    """
    asked = unanswered(owner, RENEW_IMAGE_ANNOTATION, dict(ledger.answered))
    spec = digest(deployment.spec.model_dump(mode="json", exclude={"replicas", "autoscaling"}, exclude_defaults=True))
    changed = deployment.metadata.generation != ledger.rendered_generation and ledger.rendered_spec not in (None, spec)
    return ledger.model_copy(
        update={
            "runtime": settings.runtime if ledger.runtime is None or changed or asked else ledger.runtime,
            "rendered_generation": deployment.metadata.generation,
            "rendered_spec": spec,
            "answered": {**ledger.answered, RENEW_IMAGE_ANNOTATION: asked} if asked else ledger.answered,
        }
    )


def _wanted(
    observed: DeploymentObserved, deployment: Deployment, project: DrivetrainProject, serving: DeploymentLedger
) -> _Wanted:
    baseline = policy_of(project, None)
    pinned = deployment.spec.model
    if pinned is not None:
        found, registered = serving.pinned, _registered(observed.run_ledgers)
        if found is None or (found.project, found.version.version) != (pinned.name, pinned.version):
            version = registered.get(pinned.version)
            found = PinnedVersion(project=pinned.name, version=version) if version is not None else None
        if found is None:
            told = f"No run of project {pinned.name} has registered version {pinned.version}"
            known = f": name one of {', '.join(registered)}." if registered else "; none has registered any yet."
            return _Wanted(baseline, None, Fact("ModelNotFound", told + known), serving.pinned)
        policy = policy_of(project, found.version)
        return _Wanted(baseline, Target(policy_hash(policy), policy, manual=True, pinned=True), None, found)
    ledger = records.ledger(ProjectLedger, observed.project_ledger)
    if ledger.approved is None:
        return _Wanted(baseline, None, None)
    policy = policy_of(project, _model_to_roll_out(project, ledger.approved, serving))
    started = next((run for run in ledger.runs if policy.model and run.name == policy.model.run), None)
    manual = started is None or started.cause == "Manual"
    return _Wanted(baseline, Target(policy_hash(policy), policy, manual=manual), None)


def _model_to_roll_out(
    project: DrivetrainProject, approved: VersionReference, serving: DeploymentLedger
) -> VersionReference | None:
    """The approved version; under changed levers or objective the champion, if that version was rejected before."""
    rejected = {each.hash for each in serving.rejected}
    if policy_hash(policy_of(project, approved)) in rejected:
        return approved
    if not any(same_version(each, approved) for each in serving.rejected):
        return approved
    return champion_of(serving)


def _registered(run_ledgers: tuple[Document, ...]) -> dict[str, VersionReference]:
    """The versions that the project's runs have registered, by number."""
    found = (records.ledger(RunLedger, each).version for each in run_ledgers)
    return {each.version: each for each in found if each is not None}


def _with_baseline(
    ledger: DeploymentLedger, policy: Policy, target: Target | None, loads: dict[str, PolicyLoad], now: datetime
) -> DeploymentLedger:
    """Follow a changed baseline, once every replica holds it and no rollout is open; it is the first stable variant."""
    hash_ = policy_hash(policy)
    if ledger.baseline is None:
        stable = StableVariant(hash=hash_, since=now)
        return ledger.model_copy(update={"baseline": hash_, "stable": stable, "policies": {hash_: policy}})
    if hash_ == ledger.baseline or ledger.candidate is not None:
        return ledger
    if hash_ not in ledger.policies:
        # The target is offered after it, and may take a minute to reach the replicas as well: they go together.
        following = {} if target is None else {target.hash: target.policy}
        return ledger.model_copy(update={"policies": {**ledger.policies, hash_: policy, **following}})
    if not is_loaded(hash_, loads):
        return ledger
    follows = ledger.stable is not None and ledger.stable.hash == ledger.baseline
    stable = StableVariant(hash=hash_, since=now) if follows or ledger.stable is None else ledger.stable
    return ledger.model_copy(update={"baseline": hash_, "stable": stable})


def _look(
    deployment: Deployment,
    project: DrivetrainProject,
    target: Target | None,
    ledger: DeploymentLedger,
    report: ServingReport | None,
    *,
    may_start: bool,
    owner: Document,
) -> Look:
    evidence = report.rollout if report else None
    candidate = ledger.candidate
    if evidence is not None and (candidate is None or evidence.rollout != candidate.rollout):
        evidence = None
    asked = {
        name: unanswered(owner, name, dict(ledger.answered))
        for name in (ABORT_ANNOTATION, PROMOTE_ANNOTATION, RETRY_ANNOTATION)
    }
    return Look(
        target=target,
        rollout=deployment.spec.rollout,
        kpi=project.spec.objective.kpi,
        loads={load.hash: load for load in report.loads} if report else {},
        evidence=evidence,
        may_start=may_start,
        paused=annotations_of(owner).get(PAUSE_ANNOTATION) == "true",
        asked=asked,
        uid=uid_of(owner),
        latency_ms=project.spec.decisions.environment.latency_ms,
    )


def _sizes(observed: DeploymentObserved, service: Document | None, workers: int) -> list[Effect]:
    """What changes the number of workers in the RayClusters of a RayService."""
    namespace = namespace_of(observed.owner)
    live = (observed.live.get(Ref(RAY_CLUSTER, namespace, name)) for name in records.clusters_of(service))
    found = (resized(cluster, workers, observed.pods) for cluster in live if cluster is not None)
    return [effect for effect in found if effect is not None]


def _pruned(ledger: DeploymentLedger, next_baseline: str, target: Target | None) -> DeploymentLedger:
    """Forget policies that nobody needs any more."""
    kept = {next_baseline, ledger.baseline}
    if target is not None and next_baseline != ledger.baseline:
        kept.add(target.hash)
    kept |= {each.hash for each in (ledger.stable, ledger.candidate) if each is not None}
    if kept >= ledger.policies.keys():
        return ledger
    return ledger.model_copy(
        update={"policies": {name: policy for name, policy in ledger.policies.items() if name in kept}}
    )


def _gone(observed: DeploymentObserved, ledger: DeploymentLedger) -> tuple[str, ...]:
    """Report keys of clusters that no longer exist."""
    current = records.serving_cluster(records.service_of(ledger.revision, observed.ray_services))
    if current is None:
        return ()
    known = {labels_of(pod).get(CLUSTER_LABEL, "") for pod in observed.pods}
    for each in observed.ray_services:
        known |= set(records.clusters_of(each))
    written = texts(observed.live.get(refs_of(observed.owner).report) or {}, "data")
    return tuple(key for key, content in written.items() if content and key not in known)


def _wake_after(
    observed: DeploymentObserved,
    ledger: DeploymentLedger,
    deployment: Deployment,
    report: ServingReport | None,
    now: datetime,
) -> timedelta | None:
    """The next deadline that no event announces."""
    heard = silence.due(ledger, records.service_of(ledger.revision, observed.ray_services), report)
    times = [due for due in (heard, *map(attempts.mount_due, observed.pods)) if due is not None]
    if ledger.pending_since is not None:
        times.append(ledger.pending_since + PENDING_WITHIN)
    if ledger.switched_at is not None:
        times.append(ledger.switched_at + DRAIN)
    if ledger.candidate is not None:
        times.append(ledger.candidate.since + deployment.spec.rollout.analysis.deadline)
    times = [time for time in times if time > now]
    return max(min(times) - now, timedelta(seconds=1)) if times else None
