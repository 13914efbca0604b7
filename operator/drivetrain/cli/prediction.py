"""What the operator would do once manifests are applied: its own decisions, run on an overlay until nothing changes."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from drivetrain.api.documents import Document, mapping, text
from drivetrain.api.kinds import (
    DEPLOYMENT,
    DRIVETRAIN_PROJECT,
    TRAINING_RUN,
    WORKLOAD,
    WORKLOAD_V1BETA1,
    Kind,
    Ref,
    ref_of,
)
from drivetrain.api.ledger import DeploymentLedger, RecordedRuntime
from drivetrain.cli.installation import UNKNOWN_IMAGE
from drivetrain.cli.overlay import Overlay
from drivetrain.controller.cluster.observation import Deployments, Projects, TrainingRuns
from drivetrain.controller.cluster.port import FIELD_MANAGER, Cluster
from drivetrain.controller.core import deployment, records
from drivetrain.controller.core.difference import needs_write
from drivetrain.controller.core.observations import DeploymentObserved
from drivetrain.controller.core.plan import Apply, Delete, Plan
from drivetrain.controller.manifests.settings import Settings

ROUNDS = 8


@dataclass(frozen=True, slots=True)
class Prediction:
    """What would be written, beside what is there now."""

    created: tuple[Document, ...]
    changed: tuple[Document, ...]
    deleted: tuple[Ref, ...]
    stands: tuple[Document, ...]
    """The planned objects, and ours that follow from them, with the status that the operator would set at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Recorded(Settings):
    """Settings of an operator that cannot be asked: those by which a Deployment was rendered last."""

    recorded: RecordedRuntime

    @property
    def runtime(self) -> RecordedRuntime:
        """What was recorded, the version of Drivetrain included."""
        return self.recorded


class _Decider(Protocol):
    async def __call__(self, cluster: Cluster, ref: Ref) -> Plan | None: ...


def predict(overlay: Overlay, planned: Sequence[Ref], settings: Settings) -> Prediction:
    """Let the operator decide about what is planned on the overlay, until nothing changes."""
    return asyncio.run(_predict(overlay, planned, settings))


async def _predict(overlay: Overlay, planned: Sequence[Ref], settings: Settings) -> Prediction:
    deciders = await _deciders(overlay, settings)
    for _ in range(ROUNDS):
        wrote = False
        for kind, decider in deciders.items():
            for ref in await _concerned(overlay, kind, planned):
                plan = await decider(overlay, ref)
                wrote |= plan is not None and await _carry_out(overlay, plan, ref)
        if not wrote:
            break
    return _difference(overlay, set(planned))


async def _deciders(overlay: Overlay, settings: Settings) -> dict[Kind, _Decider]:
    served = [kind for kind in (WORKLOAD, WORKLOAD_V1BETA1) if await overlay.serves(kind)]
    projects, runs = Projects(settings), TrainingRuns(settings, served[0] if served else None)
    deployments = Deployments(settings)

    async def of_project(cluster: Cluster, ref: Ref) -> Plan | None:
        observed = await projects.observe(cluster, ref)
        return projects.decide(observed, overlay.now) if observed else None

    async def of_run(cluster: Cluster, ref: Ref) -> Plan | None:
        observed = await runs.observe(cluster, ref)
        return runs.decide(observed, overlay.now) if observed else None

    async def of_deployment(cluster: Cluster, ref: Ref) -> Plan | None:
        observed = await deployments.observe(cluster, ref)
        return deployment.decide(observed, overlay.now, _known(settings, observed)) if observed else None

    return {DRIVETRAIN_PROJECT: of_project, TRAINING_RUN: of_run, DEPLOYMENT: of_deployment}


def _known(settings: Settings, observed: DeploymentObserved) -> Settings:
    """The settings; where the default image is not known, no other than the recorded one is predicted."""
    refs = deployment.refs_of(observed.owner)
    recorded = records.ledger(DeploymentLedger, observed.live.get(refs.ledger)).runtime
    if settings.ray_image != UNKNOWN_IMAGE or recorded is None:
        return settings
    return _Recorded(recorded.image, recorded.ray_version, recorded=recorded)


async def _concerned(overlay: Overlay, kind: Kind, planned: Sequence[Ref]) -> tuple[Ref, ...]:
    """The objects of a kind that are planned, and those that belong to a project that is planned or was made here."""
    projects = {(ref.namespace, ref.name) for ref in planned if ref.kind == DRIVETRAIN_PROJECT}
    found: dict[Ref, None] = {ref: None for ref in planned if ref.kind == kind}
    if kind != DRIVETRAIN_PROJECT:
        for namespace in {namespace for namespace, _ in projects}:
            for each in (await overlay.list(kind, namespace)).items:
                if (namespace, text(each, "spec", "project")) in projects:
                    found[ref_of(each)] = None
    return tuple(found)


async def _carry_out(overlay: Overlay, plan: Plan, owner: Ref) -> bool:
    """Write what is not there yet, as the operator's shell does; whether anything was."""
    wrote = False
    for effect in (*((plan.ledger,) if plan.ledger else ()), *plan.effects):
        match effect:
            case Apply():
                live = await overlay.get(effect.ref)
                if live is None or needs_write(live, effect.object, manager=FIELD_MANAGER):
                    await overlay.apply(effect.object)
                    wrote = True
            case Delete():
                if await overlay.get(effect.ref) is not None:
                    await overlay.delete(effect.ref)
                    wrote = True
            case _:
                pass  # an event
    before = await overlay.get(owner)
    if plan.status is not None and before is not None and plan.status != mapping(before, "status"):
        await overlay.apply_status({**before, "status": plan.status})
        wrote = True
    return wrote


def _difference(overlay: Overlay, planned: set[Ref]) -> Prediction:
    created: list[Document] = []
    changed: list[Document] = []
    deleted: list[Ref] = []
    stands: list[Document] = []
    for ref, document in overlay.changed().items():
        live = overlay.live(ref)
        if document is None:
            if live is not None:
                deleted.append(ref)
            continue
        if ref.kind in (DRIVETRAIN_PROJECT, TRAINING_RUN, DEPLOYMENT):
            stands.append(document)
        if ref in planned:
            continue
        if live is None:
            created.append(document)
        elif _content(live) != _content(document):
            changed.append(document)
    return Prediction(tuple(created), tuple(changed), tuple(deleted), tuple(stands))


def _content(document: Document) -> Document:
    return {key: part for key, part in document.items() if key not in ("metadata", "status")}
