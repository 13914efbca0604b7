"""What happens to the objects of the cases: stories told side by side, in one namespace of a party."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from drivetrain.api.documents import Document, documents, labels_of, mapping, name_of, namespace_of, text
from drivetrain.api.dossier import Dossier
from drivetrain.api.kinds import POD, RAY_CLUSTER, RAY_JOB, RAY_SERVICE, Ref
from drivetrain.api.names import CLUSTER_LABEL, NODE_TYPE_LABEL
from drivetrain.controller.cluster.access import from_kubeconfig
from drivetrain.controller.cluster.kubernetes import connect
from drivetrain.controller.cluster.port import Cluster
from tests.conformance import manifests
from tests.conformance.chronicle import Chronicle, Moment
from tests.conformance.party import Party

HEAD = {NODE_TYPE_LABEL: "head"}
STARTS, ENDS, GOES = 240.0, 120.0, 120.0
"""Seconds: several Ray heads start side by side on two cores."""
MANAGER = "conformance"
ABSENT, WORD = "absent:app", "word:app"


@dataclass(frozen=True, slots=True)
class Stage:
    """Where a story takes place."""

    party: Party
    cluster: Cluster
    seen: Chronicle

    async def apply(self, document: Document) -> None:
        """Create or change an object of the namespace."""
        metadata = {**mapping(document, "metadata"), "namespace": self.party.namespace}
        await self.cluster.apply({**document, "metadata": metadata}, field_manager=MANAGER)

    async def delete(self, document: Document) -> None:
        """Ask for the deletion of an object that was seen."""
        kind = {each.kind: each for each in (POD, RAY_JOB, RAY_SERVICE)}[text(document, "kind")]
        await self.cluster.delete(Ref(kind, namespace_of(document), name_of(document)))

    async def job(self, name: str, phase: str, seconds: float, *, status: str | None = None) -> Document:
        """The RayJob once it is in this phase, and Ray's job in this status."""

        def reached() -> Document | None:
            found = self.seen.get(RAY_JOB, name) or {}
            stated = text(found, "status", "jobDeploymentStatus") == phase
            return found if stated and status in (None, text(found, "status", "jobStatus")) else None

        return await self.seen.until(reached, seconds, f"{name} is {phase} {status or ''}")

    async def service(self, name: str, app: str, ready: str, seconds: float) -> Document:
        """The RayService once its application is in this state and its Ready condition has this status."""

        def reached() -> Document | None:
            found = self.seen.get(RAY_SERVICE, name) or {}
            return found if (application(found)[1], readiness(found)[0]) == (app, ready) else None

        return await self.seen.until(reached, seconds, f"{name} is {app}, Ready={ready}")

    async def answers(self, name: str, word: str) -> None:
        """Wait until the endpoint of a RayService answers with this word."""

        def answered() -> bool:
            with suppress(OSError):
                return self.party.answer(name) == word
            return False

        await _outside(answered, f"{name} answers {word}")

    async def kept(self, *jobs: Document) -> None:
        """Wait until each of these incarnations of a RayJob has left its dossier, which may outlast its cluster."""
        wanted = {text(job, "status", "jobId") for job in jobs}
        await _outside(
            lambda: wanted <= {each.submission for each in self.party.dossiers()}, f"dossiers of {sorted(wanted)}"
        )

    def pods(self, cluster: str) -> tuple[Document, ...]:
        """Pods of a RayCluster."""
        return self.seen.items(POD, {CLUSTER_LABEL: cluster})

    async def gone(self, cluster: str) -> None:
        """Wait until neither a RayCluster nor a Pod of it is left."""
        await self.seen.until(
            lambda: self.seen.get(RAY_CLUSTER, cluster) is None and not self.pods(cluster), GOES, f"{cluster} is gone"
        )


async def _outside(seen: Callable[[], bool], what: str) -> None:
    """Wait for what no object tells."""
    for _ in range(int(ENDS)):
        if await asyncio.to_thread(seen):
            return
        await asyncio.sleep(1)
    raise AssertionError(f"not within {ENDS:.0f} looks: {what}")


def condition(found: Document, type_: str) -> Document:
    """The condition of that type, or an empty map."""
    stated = documents(found, "status", "conditions")
    return next((each for each in stated if text(each, "type") == type_), {})


def readiness(service: Document) -> tuple[str, str]:
    """Status and reason of a RayService's Ready condition."""
    found = condition(service, "Ready")
    return text(found, "status"), text(found, "reason")


def application(service: Document) -> tuple[str, str]:
    """Where the application `word` is listed, and its state."""
    for part in ("activeServiceStatus", "pendingServiceStatus"):
        if found := mapping(service, "status", part, "applicationStatuses", "word"):
            return part, text(found, "status")
    return "", ""


def cluster_of(found: Document) -> str:
    """The RayCluster that a RayJob's or RayService's status names."""
    parts = ((), ("activeServiceStatus",), ("pendingServiceStatus",))
    return next((name for part in parts if (name := text(found, "status", *part, "rayClusterName"))), "")


async def late(stage: Stage) -> None:
    """A job whose Secret comes late, and which succeeds then."""
    await stage.apply(manifests.job(stage.party, "late", "echo done", keys=manifests.LATE))

    def waits() -> bool:
        found = (each for each in stage.seen.items(POD, HEAD) if labels_of(each)[CLUSTER_LABEL].startswith("late-"))
        return any(waiting(each)[0] == "CreateContainerConfigError" for each in found)

    await stage.seen.until(waits, STARTS, "the head of late waits for its Secret")
    await stage.apply(manifests.secret(stage.party, manifests.LATE))
    ended = await stage.job("late", "Complete", STARTS)
    await stage.gone(cluster_of(ended))
    await stage.kept(ended)


def waiting(pod: Document) -> tuple[str, str]:
    """Reason and message with which the first container of a Pod waits."""
    found = next(iter(documents(pod, "status", "containerStatuses")), {})
    return text(found, "state", "waiting", "reason"), text(found, "state", "waiting", "message")


async def retried(stage: Stage) -> None:
    """A job that fails as often as it is tried: twice."""
    await stage.apply(manifests.job(stage.party, "retried", "exit 3", retries=1))
    first = await stage.job("retried", "Retrying", STARTS)
    second = await stage.job("retried", "Failed", STARTS)
    await stage.gone(cluster_of(second))
    await stage.kept(first, second)


async def suspended(stage: Stage) -> None:
    """A job that is made suspended, as Kueue does it, resumed, suspended while it runs, resumed, and deleted."""

    async def suspend(suspend: bool) -> None:
        await stage.apply(manifests.job(stage.party, "suspended", "sleep 600", suspend=suspend))

    await suspend(True)
    await stage.job("suspended", "Suspended", ENDS)
    await suspend(False)
    first = await stage.job("suspended", "Running", STARTS, status="RUNNING")
    await suspend(True)
    await stage.job("suspended", "Suspended", ENDS)
    await suspend(False)
    second = await stage.job("suspended", "Running", STARTS, status="RUNNING")
    await stage.delete(second)
    await stage.seen.until(lambda: stage.seen.get(RAY_JOB, "suspended") is None, GOES, "suspended is gone")
    for found in (first, second):
        await stage.gone(cluster_of(found))
    await stage.kept(first, second)


async def lost(stage: Stage) -> None:
    """A job whose head is deleted under it."""
    await stage.apply(manifests.job(stage.party, "lost", "sleep 600"))
    running = await stage.job("lost", "Running", STARTS, status="RUNNING")
    await stage.delete(the_head(stage, running))
    ended = await stage.job("lost", "Failed", STARTS)
    await stage.gone(cluster_of(ended))
    await stage.kept(ended)


async def served(stage: Stage) -> None:
    """An application that fails, is corrected, changed, broken, loses its head, and is deleted."""

    async def serve(import_path: str, word: str) -> None:
        await stage.apply(manifests.service(stage.party, "served", import_path, word))

    await serve(ABSENT, "one")
    await stage.service("served", "DEPLOY_FAILED", "False", STARTS)
    await serve(WORD, "one")
    await stage.service("served", "RUNNING", "True", ENDS)
    await stage.answers("served", "one")
    await serve(WORD, "two")
    await stage.answers("served", "two")
    await stage.service("served", "RUNNING", "True", ENDS)
    await serve(ABSENT, "three")
    await stage.service("served", "DEPLOY_FAILED", "True", ENDS)
    await stage.answers("served", "two")
    await serve(WORD, "three")
    await stage.answers("served", "three")
    serving = await stage.service("served", "RUNNING", "True", ENDS)
    await stage.delete(the_head(stage, serving))
    await stage.service("served", "", "False", GOES)
    again = await stage.service("served", "RUNNING", "True", STARTS)
    await stage.answers("served", "three")
    await stage.delete(again)
    await stage.seen.until(lambda: stage.seen.get(RAY_SERVICE, "served") is None, GOES, "served is gone")
    await stage.gone(cluster_of(again))


LONG = "refused-" + "x" * 40
"""One character more than KubeRay allows for the name of a RayJob or RayService."""


async def refused(stage: Stage) -> None:
    """A job and an endpoint whose names are too long."""
    await stage.apply(manifests.job(stage.party, LONG, "echo done"))
    await stage.apply(manifests.service(stage.party, LONG, WORD, "one"))
    await stage.job(LONG, "ValidationFailed", ENDS)
    await stage.seen.until(
        lambda: readiness(stage.seen.get(RAY_SERVICE, LONG) or {})[1] == "ValidationFailed", ENDS, "it is refused"
    )


def the_head(stage: Stage, found: Document) -> Document:
    """The head Pod of a RayJob's or RayService's cluster."""
    (pod,) = (each for each in stage.pods(cluster_of(found)) if HEAD.items() <= labels_of(each).items())
    return pod


STORIES: tuple[Callable[[Stage], Awaitable[None]], ...] = (refused, late, retried, suspended, lost, served)


@dataclass(frozen=True, slots=True)
class Told:
    """What all stories left: every change in order, the dossiers, and where a story went no further."""

    namespace: str
    moments: Sequence[Moment] = field(repr=False)
    dossiers: Mapping[str, Dossier] = field(repr=False)
    """By Ray's submission id."""
    failures: Mapping[str, BaseException]

    def of(self, kind_ref: Ref) -> tuple[Moment, ...]:
        """The changes of one object."""
        return tuple(moment for moment in self.moments if moment.ref == kind_ref)

    def job(self, story: str, name: str = "") -> tuple[Moment, ...]:
        """The changes of a story's RayJob, by default of the story's name. Raises what stopped the story."""
        return self._story(story, Ref(RAY_JOB, self.namespace, name or story))

    def service(self, story: str, name: str = "") -> tuple[Moment, ...]:
        """The changes of a story's RayService, likewise."""
        return self._story(story, Ref(RAY_SERVICE, self.namespace, name or story))

    def cluster(self, name: str) -> tuple[Moment, ...]:
        """The changes of a RayCluster."""
        return self.of(Ref(RAY_CLUSTER, self.namespace, name))

    def pods(self, cluster: str) -> tuple[Moment, ...]:
        """The changes of all Pods of a RayCluster."""
        return tuple(
            moment
            for moment in self.moments
            if moment.ref.kind == POD and labels_of(moment.document).get(CLUSTER_LABEL) == cluster
        )

    def _story(self, story: str, ref: Ref) -> tuple[Moment, ...]:
        if story in self.failures:
            raise self.failures[story]
        return self.of(ref)


async def tell(party: Party) -> Told:
    """Run all stories side by side, and return what was seen however they end."""
    async with connect(from_kubeconfig(party.kubeconfig), lambda *_: None) as cluster:
        seen = Chronicle(cluster, party.namespace, (RAY_JOB, RAY_SERVICE, RAY_CLUSTER, POD))
        stage = Stage(party, cluster, seen)
        for each in manifests.surroundings(party):
            await stage.apply(each)
        await seen.open()
        try:
            ended = await asyncio.gather(*(story(stage) for story in STORIES), return_exceptions=True)
        finally:
            await seen.close()
    failures = {story.__name__: end for story, end in zip(STORIES, ended, strict=True) if end is not None}
    dossiers = {each.submission: each for each in party.dossiers()}
    return Told(party.namespace, tuple(seen.moments()), dossiers, failures)
