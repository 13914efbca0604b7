"""The rollout as a state machine: everything that moves a Deployment's ledger from one variant to the next.

    Idle --Offered--> Loading --Loaded--> Weighted --Stepped--> Weighted --Won--> Idle (candidate is stable)
    Loading --LoadedToShadow--> Shadow --Shadowed--> Weighted
    Loading --LoadedPinned--> Idle (a pinned version has no canary)
    Loading, Shadow, Weighted --Superseded--> Idle (forgotten)
    Loading --LoadFailed--> Idle, Shadow --ShadowFailed--> Idle, Weighted --Harmed--> Idle, and
    Loading, Shadow, Weighted --Aborted, Inconclusive--> Idle (remembered as rejected)
    Shadow, Weighted --PromotedByHand--> Idle

`event` says what happened, the table says where it leads, `apply_event` writes it into the ledger. The stable variant
only ever changes to one that all replicas hold.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from drivetrain.api.ledger import CandidateVariant, DeploymentLedger, StableVariant
from drivetrain.api.names import ABORT_ANNOTATION, PROMOTE_ANNOTATION, RETRY_ANNOTATION
from drivetrain.api.policy import Policy
from drivetrain.api.portfolio import portfolio_bounds
from drivetrain.api.report import PolicyLoad, RolloutEvidence, ShadowEvidence
from drivetrain.api.v1alpha1.deployment import RejectedVariant
from drivetrain.api.v1alpha1.objective import Kpi
from drivetrain.api.v1alpha1.rollout import Rollout
from drivetrain.controller.core import shadowing
from drivetrain.controller.core.conditions import clipped
from drivetrain.controller.core.verdicts import Verdicts, verdicts

REJECTED_LIMIT = 50


class Phase(Enum):
    """Where a rollout stands."""

    IDLE = "Idle"
    LOADING = "Loading"
    SHADOW = "Shadow"
    WEIGHTED = "Weighted"


class Event(Enum):
    """What can happen to it."""

    OFFERED = "Offered"
    SUPERSEDED = "Superseded"
    ABORTED = "Aborted"
    LOADED = "Loaded"
    LOADED_PINNED = "LoadedPinned"
    LOADED_TO_SHADOW = "LoadedToShadow"
    SHADOWED = "Shadowed"
    SHADOW_FAILED = "ShadowFailed"
    LOAD_FAILED = "LoadFailed"
    HARMED = "Harmed"
    INCONCLUSIVE = "Inconclusive"
    PROMOTED_BY_HAND = "PromotedByHand"
    STEPPED = "Stepped"
    WON = "Won"


TABLE: Mapping[tuple[Phase, Event], Phase] = {
    (Phase.IDLE, Event.OFFERED): Phase.LOADING,
    (Phase.LOADING, Event.SUPERSEDED): Phase.IDLE,
    (Phase.LOADING, Event.ABORTED): Phase.IDLE,
    (Phase.LOADING, Event.LOADED): Phase.WEIGHTED,
    (Phase.LOADING, Event.LOADED_PINNED): Phase.IDLE,
    (Phase.LOADING, Event.LOADED_TO_SHADOW): Phase.SHADOW,
    (Phase.LOADING, Event.LOAD_FAILED): Phase.IDLE,
    (Phase.LOADING, Event.INCONCLUSIVE): Phase.IDLE,
    (Phase.SHADOW, Event.SUPERSEDED): Phase.IDLE,
    (Phase.SHADOW, Event.ABORTED): Phase.IDLE,
    (Phase.SHADOW, Event.SHADOW_FAILED): Phase.IDLE,
    (Phase.SHADOW, Event.INCONCLUSIVE): Phase.IDLE,
    (Phase.SHADOW, Event.PROMOTED_BY_HAND): Phase.IDLE,
    (Phase.SHADOW, Event.SHADOWED): Phase.WEIGHTED,
    (Phase.WEIGHTED, Event.SUPERSEDED): Phase.IDLE,
    (Phase.WEIGHTED, Event.ABORTED): Phase.IDLE,
    (Phase.WEIGHTED, Event.HARMED): Phase.IDLE,
    (Phase.WEIGHTED, Event.INCONCLUSIVE): Phase.IDLE,
    (Phase.WEIGHTED, Event.PROMOTED_BY_HAND): Phase.IDLE,
    (Phase.WEIGHTED, Event.STEPPED): Phase.WEIGHTED,
    (Phase.WEIGHTED, Event.WON): Phase.IDLE,
}


@dataclass(frozen=True, slots=True)
class Target:
    """What should serve."""

    hash: str
    policy: Policy
    manual: bool = False
    """Trained by hand: its rejection starts no retraining."""
    pinned: bool = False
    """Named by `spec.model`: it serves as soon as it is loaded."""


@dataclass(frozen=True, slots=True)
class Look:
    """Everything that one look at a rollout depends on, beside the ledger."""

    target: Target | None
    """None: nothing but today's policy is wanted."""
    rollout: Rollout
    kpi: Kpi
    loads: Mapping[str, PolicyLoad]
    evidence: RolloutEvidence | None
    """Of the open rollout; None where the report speaks of another one."""
    may_start: bool
    """The endpoint serves, and its cluster is not about to be replaced."""
    paused: bool
    asked: Mapping[str, str]
    """Annotations of a person that were not acted on yet: name to value."""
    uid: str
    latency_ms: int
    """Time that a decision may take."""

    @property
    def shadow(self) -> ShadowEvidence | None:
        """What a candidate without weight did so far."""
        return self.evidence.shadow if self.evidence else None


def phase_of(ledger: DeploymentLedger) -> Phase:
    """Where the ledger says the rollout stands."""
    return Phase(ledger.candidate.phase) if ledger.candidate else Phase.IDLE


def weight_of(ledger: DeploymentLedger, rollout: Rollout) -> int:
    """Percent of units that the candidate gets now."""
    if ledger.candidate is None or ledger.candidate.phase != "Weighted":
        return 0
    return rollout.steps[min(ledger.candidate.step, len(rollout.steps) - 1)].weight


def is_loaded(hash_: str, loads: Mapping[str, PolicyLoad]) -> bool:
    """Whether all replicas hold this policy ready."""
    return hash_ in loads and loads[hash_].state == "Loaded"


def names(asked: str, hash_: str) -> bool:
    """Whether the value of an annotation names this hash: `<hash>`, or `<hash>:<anything>` to ask once more."""
    return asked.partition(":")[0].strip() == hash_


def judged(ledger: DeploymentLedger, look: Look) -> Verdicts | None:
    """What the evidence of the open rollout proves; None where there is none."""
    if look.evidence is None or ledger.stable is None:
        return None
    target = look.target  # unlike the ledger, it still knows the candidate at the look that ends the rollout
    known = target is not None and target.hash == look.evidence.candidate
    bounds = portfolio_bounds(target.policy.objective.constraints) if target and known else ()
    return verdicts(look.evidence, look.rollout.analysis, look.kpi, ledger.stable.loss_accepted, bounds)


def advance(ledger: DeploymentLedger, look: Look, now: datetime) -> DeploymentLedger:
    """The ledger after this look: a retry answered or one event applied, else the ledger itself."""
    if retry := look.asked.get(RETRY_ANNOTATION):
        # Answered also where it names nothing: a later rejection must not meet a retry that was asked before it.
        return ledger.model_copy(
            update={
                "rejected": tuple(each for each in ledger.rejected if not names(retry, each.hash)),
                "answered": {**ledger.answered, RETRY_ANNOTATION: retry},
            }
        )
    found = event(ledger, look, now)
    return ledger if found is None else apply_event(ledger, found, look, now)


def event(ledger: DeploymentLedger, look: Look, now: datetime) -> Event | None:
    """What happened, the first that holds; None: nothing."""
    candidate, target = ledger.candidate, look.target
    if candidate is None:
        if target is None or ledger.stable is None or target.hash == ledger.stable.hash or not look.may_start:
            return None
        return None if any(each.hash == target.hash for each in ledger.rejected) else Event.OFFERED
    if target is None or target.hash != candidate.hash:
        return Event.SUPERSEDED
    if names(look.asked.get(ABORT_ANNOTATION, ""), candidate.hash):
        return Event.ABORTED
    load = look.loads.get(candidate.hash)
    if candidate.phase == "Loading":
        if load is not None and load.state == "Failed":
            return Event.LOAD_FAILED
        if load is not None and load.state == "Loaded":
            if target.pinned:
                return Event.LOADED_PINNED
            return Event.LOADED if look.rollout.shadow is None else Event.LOADED_TO_SHADOW
        return Event.INCONCLUSIVE if not target.pinned and _is_overdue(ledger, look, now) else None
    found = _verdict(ledger, look) if candidate.phase == "Weighted" else _beside_stable(candidate, look)
    if found is not None:
        return found
    return Event.INCONCLUSIVE if _is_overdue(ledger, look, now) else None


def _beside_stable(candidate: CandidateVariant, look: Look) -> Event | None:
    """What a person or the replicas say of a candidate that decides beside the stable version."""
    if _shadow_fault(look):
        return Event.SHADOW_FAILED
    if names(look.asked.get(PROMOTE_ANNOTATION, ""), candidate.hash):
        return Event.PROMOTED_BY_HAND
    if look.paused:
        return None
    shadow, seen = look.rollout.shadow, look.shadow
    enough = shadow is None or (seen is not None and shadowing.is_enough(seen, shadow))
    return Event.SHADOWED if enough else None


def _shadow_fault(look: Look) -> str:
    shadow, seen = look.rollout.shadow, look.shadow
    return shadowing.fault(seen, shadow, look.latency_ms) if shadow is not None and seen is not None else ""


def _verdict(ledger: DeploymentLedger, look: Look) -> Event | None:
    """What a person or the evidence says of a weighted candidate."""
    candidate, judgement = ledger.candidate, judged(ledger, look)
    assert candidate is not None
    if judgement is not None and not _is_halted(look) and judgement.harm is not None:
        return Event.HARMED
    if names(look.asked.get(PROMOTE_ANNOTATION, ""), candidate.hash):
        return Event.PROMOTED_BY_HAND
    if judgement is None or look.paused or _is_halted(look) or not judgement.may_advance:
        return None
    assert look.evidence is not None
    if look.evidence.weight != weight_of(ledger, look.rollout):
        return None  # a step counts only once it is in force
    if candidate.step + 1 < len(look.rollout.steps):
        return Event.STEPPED
    kpi = judgement.kpi
    if kpi is None:
        return None
    won = kpi.better if look.rollout.analysis.goal == "Superior" else kpi.harmless
    return Event.WON if won else None


def apply_event(ledger: DeploymentLedger, found: Event, look: Look, now: datetime) -> DeploymentLedger:
    """The ledger after this event.

    Raises:
        ValueError: the event cannot happen in the ledger's phase; nothing changes.
    """
    phase = phase_of(ledger)
    if (phase, found) not in TABLE:
        raise ValueError(f"{found.value} cannot happen to a rollout that is {phase.value}")
    match found:
        case Event.OFFERED:
            return _offered(ledger, look, now)
        case Event.SUPERSEDED:
            return ledger.model_copy(update={"candidate": None})
        case Event.LOADED_TO_SHADOW:
            assert ledger.candidate is not None
            return ledger.model_copy(update={"candidate": ledger.candidate.model_copy(update={"phase": "Shadow"})})
        case Event.LOADED | Event.SHADOWED | Event.STEPPED:
            assert ledger.candidate is not None
            step = ledger.candidate.step + 1 if found is Event.STEPPED else 0
            update = {"phase": "Weighted", "step": step, "step_entered_at": now}
            return ledger.model_copy(update={"candidate": ledger.candidate.model_copy(update=update)})
        case Event.WON | Event.PROMOTED_BY_HAND | Event.LOADED_PINNED:
            return _promoted(ledger, found, look, now)
        case Event.ABORTED | Event.LOAD_FAILED | Event.SHADOW_FAILED | Event.HARMED | Event.INCONCLUSIVE:
            return _rejected(ledger, found, look, now)


def _offered(ledger: DeploymentLedger, look: Look, now: datetime) -> DeploymentLedger:
    assert look.target is not None
    number = ledger.rollouts_started + 1
    return ledger.model_copy(
        update={
            "rollouts_started": number,
            "policies": {**ledger.policies, look.target.hash: look.target.policy},
            "candidate": CandidateVariant(
                hash=look.target.hash, rollout=f"{look.uid[:8]}-{number}", since=now, manual=look.target.manual
            ),
        }
    )


def _promoted(ledger: DeploymentLedger, found: Event, look: Look, now: datetime) -> DeploymentLedger:
    assert ledger.candidate is not None
    assert ledger.stable is not None
    judgement = judged(ledger, look)
    kpi = judgement.kpi if judgement else None
    superior = found is Event.WON and kpi is not None and kpi.better
    lost = max(-kpi.lower, 0.0) if found is Event.WON and kpi is not None else 0.0
    stable = StableVariant(
        hash=ledger.candidate.hash,
        since=now,
        proved_superior=superior,
        loss_accepted=0.0 if superior else ledger.stable.loss_accepted + lost,
    )
    return _answered(ledger.model_copy(update={"candidate": None, "stable": stable}), look, PROMOTE_ANNOTATION)


def _rejected(ledger: DeploymentLedger, found: Event, look: Look, now: datetime) -> DeploymentLedger:
    candidate = ledger.candidate
    assert candidate is not None
    policy = ledger.policies.get(candidate.hash)
    judgement, load = judged(ledger, look), look.loads.get(candidate.hash)
    reason, message = "Aborted", "Aborted on request."
    if found is Event.LOAD_FAILED:
        reason, message = "LoadFailed", f"{load.reason}: {load.message}" if load else "The candidate cannot be loaded."
    elif found is Event.SHADOW_FAILED:
        reason, message = "ShadowFailed", _shadow_fault(look)
    elif found is Event.HARMED:
        reason, message = "Harm", f"Harm is proved. {judgement.told() if judgement else ''}"
        if look.evidence is not None and look.evidence.losing_slices:
            message += f". Losing slices: {', '.join(look.evidence.losing_slices)}"
    elif found is Event.INCONCLUSIVE:
        waited = look.rollout.analysis.deadline
        shown = "; ".join(str(each) for each in judgement.all) if judgement else "no evidence came in"
        if candidate.phase == "Shadow" and look.rollout.shadow is not None:
            shown = shadowing.told(look.shadow, look.rollout.shadow).rstrip(".")
        reason, message = "Inconclusive", f"No verdict within {waited}: {shown}."
    entry = RejectedVariant(
        hash=candidate.hash,
        version=policy.model.version if policy and policy.model else None,
        digest=policy.model.digest if policy and policy.model else None,
        reason=reason,
        message=clipped(message),
        at=now,
    )
    others = tuple(each for each in ledger.rejected if each.hash != candidate.hash)
    ledger = ledger.model_copy(update={"candidate": None, "rejected": (entry, *others)[:REJECTED_LIMIT]})
    return _answered(ledger, look, ABORT_ANNOTATION) if found is Event.ABORTED else ledger


def _answered(ledger: DeploymentLedger, look: Look, annotation: str) -> DeploymentLedger:
    asked = look.asked.get(annotation)
    return ledger.model_copy(update={"answered": {**ledger.answered, annotation: asked}}) if asked else ledger


def _is_halted(look: Look) -> bool:
    return look.evidence is not None and bool(look.evidence.halted)


def _is_overdue(ledger: DeploymentLedger, look: Look, now: datetime) -> bool:
    """Whether the time is up, and is meant to end it; a person who paused it wants it to wait."""
    analysis = look.rollout.analysis
    assert ledger.candidate is not None
    return analysis.on_inconclusive == "Abort" and not look.paused and now >= ledger.candidate.since + analysis.deadline
