"""A whole world around the operator in logical time: users, events, faults, crashes, and what must always hold."""

import json
import random
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from pydantic import BaseModel

from drivetrain.api.documents import (
    JSON,
    Document,
    documents,
    integer,
    labels_of,
    mapping,
    name_of,
    text,
    texts,
    uid_of,
)
from drivetrain.api.errors import ClusterError, ConflictError, UnavailableError
from drivetrain.api.kinds import (
    CONFIG_MAP,
    DEPLOYMENT,
    DRIVETRAIN_PROJECT,
    EVENT,
    KINDS,
    OWN_KINDS,
    POD,
    RAY_CLUSTER,
    RAY_JOB,
    RAY_SERVICE,
    TRAINING_RUN,
    WORKLOAD,
    Kind,
    Ref,
    ref_of,
)
from drivetrain.api.ledger import DeploymentLedger, ProjectLedger, RunLedger
from drivetrain.api.names import LEDGER_KEY, REVISION_LABEL, ledger_name
from drivetrain.controller.cluster.observation import Deployments, Projects, TrainingRuns
from drivetrain.controller.cluster.port import FIELD_MANAGER, WatchEvent
from drivetrain.controller.handlers.owners import Owners
from drivetrain.controller.handlers.runtime import Bound, bind
from drivetrain.controller.manifests.settings import Settings
from tests.support.builders import ProjectBuilder, a_project
from tests.support.fake_cluster import Crash, FakeCluster
from tests.support.ray_programs import Script
from tests.support.ray_world import RayWorld

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)

TICK = timedelta(seconds=20)
RESYNC = 15
"""Ticks between full resyncs: five minutes."""
SETTINGS = Settings(ray_image="example.org/ray:1", ray_version="2.60.0", mlflow_url="http://mlflow:5000")
NAMESPACE = "default"
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)")
_INTERVAL = re.compile(r"\[-?[0-9.e-]+, -?[0-9.e-]+\]")
_DECISIONS = re.compile(r"\d+ of \d+ decisions")
_COUNTED = {
    *("attempt", "uncounted", "incarnation", "cluster", "formerClusters", "activeSeconds", "gpuSeconds", "failures"),
    *("rayJob", "rayClusterName", "metadata", "lastTransitionTime", "gpuHours", "answeredChange", "rolloutsStarted"),
    *("waitedSeconds", "waitingSeconds", "waitingSince"),
}
"""Keys whose values the faults may change; a stale read of what is approved starts a rollout anew."""


@dataclass
class Faults:
    """Seeded trouble until `until` ticks; `crash` is (write, moment): the process dies there, once."""

    rng: random.Random
    crash: tuple[int, str] | None = None
    rate: float = 0.0
    stale: float = 0.0
    writes: int = 0
    active: bool = True
    log: list[str] = field(default_factory=list)

    def before_write(self, verb: str, ref: Ref) -> None:
        """Crash, or refuse with a conflict or an outage."""
        self.writes += 1
        if self.crash == (self.writes, "before"):
            raise self._crash(verb, ref)
        if self.active and self.rng.random() < self.rate:
            kind: type[ClusterError] = self.rng.choice((ConflictError, UnavailableError))
            self.log.append(f"{kind.__name__} before {verb} {ref}")
            raise kind("injected", kind=ref.kind.kind, namespace=ref.namespace, name=ref.name, status=409)

    def after_write(self, verb: str, ref: Ref) -> None:
        """Crash, or lose the answer of a write that happened."""
        if self.crash == (self.writes, "after"):
            raise self._crash(verb, ref)
        if self.active and self.rng.random() < self.rate:
            self.log.append(f"lost answer of {verb} {ref}")
            raise UnavailableError("injected", kind=ref.kind.kind, namespace=ref.namespace, name=ref.name, status=0)

    def staleness(self, verb: str, kind: Kind) -> int:
        """Answer reads from the past now and then."""
        if self.active and self.rng.random() < self.stale:
            return self.rng.randint(1, 12)
        return 0

    def deliver(self, event: WatchEvent) -> Sequence[WatchEvent]:
        """Watches are not used here: `Process.hear` mistreats the events itself."""
        return (event,)

    def _crash(self, verb: str, ref: Ref) -> Crash:
        self.log.append(f"crash at write {self.writes}: {verb} {ref}")
        self.crash = None
        return Crash()


@dataclass
class Process:
    """One operator process: what it was told, and what is due."""

    cluster: FakeCluster
    bound: dict[Kind, Bound]
    rng: random.Random
    heard: int
    owners: Owners = field(default_factory=Owners)
    due: dict[Ref, datetime] = field(default_factory=dict)
    mistreat: float = 0.0

    def hear(self, now: datetime) -> None:
        """Take the events since the last time: some of them twice, some not at all, in any order."""
        changes = [event for kind in KINDS if kind != EVENT for event in self.cluster.changes_after(self.heard, kind)]
        self.heard = self.cluster.resource_version
        heard = [event for event in changes if self.rng.random() >= self.mistreat]
        heard += [event for event in changes if self.rng.random() < self.mistreat]
        if self.mistreat:
            self.rng.shuffle(heard)
        for event in heard:
            kind = ref_of(event.object).kind
            for ref in self.owners.to_wake(kind, event.object, deleted=event.type == "DELETED"):
                self.due[ref] = min(now, self.due.get(ref, now))

    def resync(self, now: datetime) -> None:
        """Everything is due."""
        for kind in OWN_KINDS:
            for each in self.cluster.find(kind):
                self.due[ref_of(each)] = now
                self.owners.listed(ref_of(each), each)

    def run(self, now: datetime) -> None:
        """Reconcile what is due, each once. A Crash passes through."""
        ready = sorted(ref for ref, time in self.due.items() if time <= now)
        self.rng.shuffle(ready)
        for ref in ready:
            del self.due[ref]
            try:
                done = finish(self.bound[ref.kind].reconcile(self.cluster, ref, now, "sim"))
            except ClusterError:
                self.due[ref] = now + TICK
                continue
            self.owners.reconciled(ref, done.owner)
            if done.wake_after is not None:
                later = now + done.wake_after
                self.due[ref] = min(later, self.due.get(ref, later))


class World:
    """Everything, stepped in ticks."""

    def __init__(self, seed: int, *, faults: Faults | None = None, script: Script | None = None) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.rng = random.Random(seed)
        self.faults = faults or Faults(random.Random(seed))
        self.cluster = FakeCluster(faults=self.faults, now=lambda: self.now)
        self.ray = RayWorld(self.cluster, script or Script())
        runs, deployments, projects = TrainingRuns(SETTINGS, WORKLOAD), Deployments(SETTINGS), Projects(SETTINGS)
        self.bound = {each.kind: each for each in (bind(runs), bind(deployments), bind(projects))}
        self.mistreat = 0.0
        self.process = self._process()
        self.tick = 0
        self.crashes = 0
        self.events: list[str] = []
        self._seen: dict[str, tuple[int, int]] = {}
        self._rejected: dict[str, set[str]] = {}
        self._answered: dict[str, str] = {}

    def _process(self) -> Process:
        process = Process(self.cluster, self.bound, self.rng, self.cluster.resource_version, mistreat=self.mistreat)
        process.resync(self.now)
        return process

    def step(self) -> None:
        """One tick: the world moves, the operator hears and acts, the garbage collector may come by."""
        self.tick += 1
        self.now += TICK
        self.ray.step(self.now)
        self.process.mistreat = self.mistreat
        self.process.hear(self.now)
        if self.tick % RESYNC == 0:
            self.process.resync(self.now)
        try:
            self.process.run(self.now)
        except Crash:
            self.crashes += 1
            self.process = self._process()
        if self.rng.random() < 0.5:
            self.cluster.collect_garbage()
        self.check()

    def settle(self, *, quiet: int = 2 * RESYNC, most: int = 900, done: Callable[[], bool] = lambda: True) -> int:
        """Step until the operator has written nothing for `quiet` ticks and `done`; return the ticks that it took."""
        still = 0
        for count in range(most):
            before = self.operator_writes
            self.step()
            still = 0 if self.operator_writes != before or not done() else still + 1
            if still >= quiet:
                return count + 1 - quiet
        raise AssertionError(f"not quiet after {most} ticks; last writes: {self.last_writes()}")

    @property
    def operator_writes(self) -> int:
        """Writes of the operator that changed something, events aside."""
        return sum(write.manager == FIELD_MANAGER and write.ref.kind != EVENT for write in self.cluster.writes)

    def last_writes(self, count: int = 12) -> list[str]:
        """The operator's last writes, for messages."""
        found = [f"{write.verb} {write.ref}" for write in self.cluster.writes if write.manager == FIELD_MANAGER]
        return found[-count:]

    # The hands of the user

    def declare(self, project: ProjectBuilder) -> None:
        """kubectl apply."""
        self.cluster.put(project.document())

    def annotate(self, ref: Ref, **values: str) -> None:
        """kubectl annotate, `drivetrain.dev/` before each name."""
        live = self.cluster.read(ref)
        assert live is not None, f"{ref} does not exist"
        annotations: dict[str, JSON] = {**mapping(live, "metadata", "annotations")}
        annotations |= {f"drivetrain.dev/{name.replace('_', '-')}": value for name, value in values.items()}
        self.cluster.put({**live, "metadata": {**mapping(live, "metadata"), "annotations": annotations}})

    def edit(self, ref: Ref, **fields: JSON) -> None:
        """kubectl edit: replace fields of the spec."""
        live = self.cluster.read(ref)
        assert live is not None, f"{ref} does not exist"
        self.cluster.put({**live, "spec": {**mapping(live, "spec"), **fields}})

    def wipe_status(self, ref: Ref) -> None:
        """Somebody empties a status."""
        live = self.cluster.read(ref)
        if live is not None:
            self.cluster.put_status({**live, "status": {}}, "vandal")

    # What can be seen

    def project(self, name: str = "shop") -> Document:
        """The project as stored."""
        return self.cluster.read(Ref(DRIVETRAIN_PROJECT, NAMESPACE, name)) or {}

    def run(self, name: str) -> Document:
        """The run as stored, or an empty document."""
        return self.cluster.read(Ref(TRAINING_RUN, NAMESPACE, name)) or {}

    def deployment(self, name: str = "shop") -> Document:
        """The Deployment as stored, or an empty document."""
        return self.cluster.read(Ref(DEPLOYMENT, NAMESPACE, name)) or {}

    def ray_jobs(self) -> tuple[Document, ...]:
        """All RayJobs."""
        return self.cluster.find(RAY_JOB)

    def ray_services(self) -> tuple[Document, ...]:
        """All RayServices."""
        return self.cluster.find(RAY_SERVICE)

    def reasons(self, document: Document) -> set[str]:
        """Reasons of all conditions."""
        return {text(each, "reason") for each in documents(document, "status", "conditions")}

    def run_ledger(self, name: str) -> RunLedger:
        """The run's ledger."""
        return self._ledger(RunLedger, TRAINING_RUN, name)

    def deployment_ledger(self, name: str = "shop") -> DeploymentLedger:
        """The Deployment's ledger."""
        return self._ledger(DeploymentLedger, DEPLOYMENT, name)

    def project_ledger(self, name: str = "shop") -> ProjectLedger:
        """The project's ledger."""
        return self._ledger(ProjectLedger, DRIVETRAIN_PROJECT, name)

    def stable_version(self, name: str = "shop") -> str | None:
        """The version that is stable, None for today's policy."""
        return text(self.deployment(name), "status", "stable", "version") or None

    def _ledger(self, model: type[M], kind: Kind, name: str) -> M:
        found = self.cluster.read(Ref(CONFIG_MAP, NAMESPACE, ledger_name(kind.kind, name)))
        return model.model_validate_json(texts(found or {}, "data").get(LEDGER_KEY, "{}"))

    # What must always hold

    def check(self) -> None:
        """Raise where a promise is broken."""
        self.ray.check()
        for kind in OWN_KINDS:
            for each in self.cluster.find(kind):
                self._check_conditions(each)
        for each in self.cluster.find(TRAINING_RUN):
            ledger = self.run_ledger(name_of(each))
            was = self._seen.get(uid_of(each), (0, 0))
            assert (ledger.attempt, ledger.incarnation) >= was, f"{name_of(each)} went back from {was}"
            self._seen[uid_of(each)] = (ledger.attempt, ledger.incarnation)
            open_jobs = [
                job
                for job in self.cluster.find(RAY_JOB)
                if labels_of(job).get("drivetrain.dev/run-uid") == uid_of(each)
            ]
            assert len(open_jobs) <= 1, f"{name_of(each)} has {len(open_jobs)} RayJobs at once"
        for each in self.cluster.find(DEPLOYMENT):
            self._check_rejections(name_of(each))

    def _check_conditions(self, owner: Document) -> None:
        found = {text(each, "type"): text(each, "status") for each in documents(owner, "status", "conditions")}
        assert not (found.get("Stalled") == "True" and found.get("Reconciling") == "True"), f"{name_of(owner)}: {found}"
        observed = integer(owner, "status", "observedGeneration")
        assert observed <= integer(owner, "metadata", "generation")

    def _check_rejections(self, name: str) -> None:
        """A rejected hash is not rolled out again unless a new retry names it."""
        ledger = self.deployment_ledger(name)
        retry = ledger.answered.get("drivetrain.dev/retry", "")
        rejected = self._rejected.setdefault(name, set())
        if retry != self._answered.get(name, ""):
            self._answered[name] = retry
            rejected.discard(retry.partition(":")[0])
        if ledger.candidate is not None:
            assert ledger.candidate.hash not in rejected, f"{ledger.candidate.hash} is rolled out again"
        rejected |= {each.hash for each in ledger.rejected}


def finish(awaited: Awaitable[T]) -> T:
    """Run what never really waits: the fake cluster answers at once."""
    steps = awaited.__await__()
    try:
        next(steps)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]  # StopIteration does not say what it carries
    raise AssertionError("the fake cluster made somebody wait")


def final(world: World) -> dict[str, JSON]:
    """The world as it should not depend on faults: without uids, times, attempts, incarnations and GPU-seconds."""
    cluster = world.cluster
    names = {uid_of(each): f"<{text(each, 'kind')} {name_of(each)}>" for each in cluster.everything()}
    revisions = {labels_of(each)[REVISION_LABEL] for each in cluster.everything() if REVISION_LABEL in labels_of(each)}
    result: dict[str, JSON] = {}
    for each in cluster.everything():
        kind = ref_of(each).kind
        if kind in (EVENT, POD, RAY_CLUSTER, WORKLOAD, RAY_JOB):
            continue
        parts: dict[str, JSON] = {key: part for key, part in each.items() if key in ("spec", "status", "data", "rules")}
        if kind == CONFIG_MAP and name_of(each).endswith("-report"):
            parts = {}
        if kind == CONFIG_MAP and name_of(each).endswith("-spec"):
            # Who is champion at a run's creation depends on when that is, and on nothing later.
            parts = {"spec": {**json.loads(texts(each, "data")["spec.json"]), "champion": None}}
        if kind == CONFIG_MAP and name_of(each).endswith("-ledger"):
            parts = {"ledger": json.loads(texts(each, "data")[LEDGER_KEY])}
        key = f"{kind.kind} {name_of(each)}"
        plain = json.dumps(_without_counts(parts), sort_keys=True)
        for uid, name in names.items():
            plain = plain.replace(uid, name)
        plain = _INTERVAL.sub("[interval]", plain.replace('"00000000-', '"<uid>-'))
        for revision in revisions:
            plain, key = plain.replace(revision, "<revision>"), key.replace(revision[:6], "<revision>")
        plain = _DECISIONS.sub("<decisions>", _TIME.sub("<time>", plain))
        result[key] = json.loads(plain)
    return result


def _without_counts(part: JSON) -> JSON:
    if isinstance(part, dict):
        return {key: _without_counts(inner) for key, inner in part.items() if key not in _COUNTED}
    return [_without_counts(inner) for inner in part] if isinstance(part, list) else part


def a_quick_project() -> ProjectBuilder:
    """The builders' project with times that a simulation can wait for."""
    return (
        a_project()
        .with_field("spec.objective.kpi.maturesAfter", "1m")
        .with_field("spec.loop", {"cooldown": "1m", "minExploredOutcomes": 100})
        .with_serving(rollout={"steps": [{"weight": 10}, {"weight": 50}], "analysis": {"minOutcomes": 300}})
    )
