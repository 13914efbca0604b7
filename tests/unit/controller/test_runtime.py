"""The running operator on the in-memory API server, in virtual time."""

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from drivetrain.api.documents import Document, integer, text
from drivetrain.api.errors import ComponentError, FencedError, UnavailableError
from drivetrain.api.kinds import CONFIG_MAP, KINDS, RAY_JOB, TRAINING_RUN, WORKLOAD, Kind, Ref
from drivetrain.controller.cluster.port import Cluster
from drivetrain.controller.core.plan import Apply, Plan
from drivetrain.controller.handlers.metrics import Metrics
from drivetrain.controller.handlers.runtime import MISSING_SECONDS, RESYNC_SECONDS, Operator, bind
from tests.support.fake_cluster import FakeCluster
from tests.support.faults import NoFaults
from tests.support.virtual_time import run

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Seen:
    """A run and its ConfigMap."""

    owner: Document
    live: Mapping[Ref, Document] = field(default_factory=dict)


class Keeper:
    """Keeps one ConfigMap a run, and counts when it was asked."""

    kind = TRAINING_RUN
    watched: tuple[Kind, ...] = (CONFIG_MAP,)

    def __init__(self, wake_after: timedelta | None = None) -> None:
        self.asked: list[tuple[str, float]] = []
        self.wake_after = wake_after

    async def observe(self, cluster: Cluster, ref: Ref) -> Seen | None:
        self.asked.append((ref.name, asyncio.get_running_loop().time()))
        owner = await cluster.get(ref)
        child = Ref(CONFIG_MAP, ref.namespace, ref.name)
        found = await cluster.get(child)
        return None if owner is None else Seen(owner, {} if found is None else {child: found})

    def decide(self, observed: Seen, now: datetime) -> Plan:
        name = text(observed.owner, "metadata", "name")
        if text(observed.owner, "spec", "bug"):
            raise ZeroDivisionError("a bug in one decision")
        child: Document = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": "team"},
            "data": {"generation": str(integer(observed.owner, "metadata", "generation"))},
        }
        return Plan(effects=(Apply(child),), wake_after=self.wake_after)


def a_run(name: str, **spec: str) -> Document:
    return {
        "apiVersion": "drivetrain.dev/v1alpha1",
        "kind": "TrainingRun",
        "metadata": {"name": name, "namespace": "team"},
        "spec": spec,
    }


def an_operator(
    cluster: Cluster, keeper: Keeper, *, missing: tuple[Kind, ...] = (), metrics: Metrics | None = None
) -> Operator:
    return Operator(
        cluster,
        (bind(keeper),),
        namespaces=("team",),
        missing=missing,
        metrics=metrics or Metrics(lambda: 0.0),
        now=lambda: NOW,
        rng=random.Random(1),
        identity="test",
    )


async def _for(operator: Operator, seconds: float) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(seconds):
            await operator.run()


def test_everything_that_is_there_at_the_start_is_reconciled_at_once() -> None:
    cluster, keeper = FakeCluster(), Keeper()
    for name in ("a", "b"):
        cluster.put(a_run(name))

    async def story() -> None:
        operator = an_operator(cluster, keeper)
        await _for(operator, 1.0)
        assert operator.synced.is_set()

    run(story())
    assert keeper.asked == [("a", 0.0), ("b", 0.0)]
    assert len(cluster.find(CONFIG_MAP)) == 2


def test_a_hint_that_was_lost_is_made_good_by_the_resync() -> None:
    cluster, keeper = FakeCluster(), Keeper()

    async def story() -> None:
        asyncio.get_running_loop().call_at(10.0, cluster.put, a_run("late"))
        await _for(an_operator(cluster, keeper), 2 * RESYNC_SECONDS)

    run(story())
    name, moment = keeper.asked[0]
    assert name == "late"
    assert RESYNC_SECONDS * 0.8 <= moment <= RESYNC_SECONDS * (1.2 + 0.5), "the interval with jitter, and the spread"


def test_a_hint_is_answered_at_once_and_wake_after_is_kept() -> None:
    cluster, keeper = FakeCluster(), Keeper(timedelta(seconds=60))

    async def story() -> None:
        operator = an_operator(cluster, keeper)
        cluster.put(a_run("a"))
        change(operator, cluster, 20.0, a_run("a", queue="gpu"))
        await _for(operator, 100.0)

    run(story())
    assert [moment for _, moment in keeper.asked] == [0.0, 20.0, 80.0]


def change(operator: Operator, cluster: FakeCluster, at: float, document: Document) -> None:
    """Let somebody write this at a moment, and the watch tell of it."""
    loop = asyncio.get_running_loop()
    loop.call_at(at, lambda: operator.hint(TRAINING_RUN, cluster.put(document), False))


def test_an_event_that_tells_nothing_new_is_answered_by_no_reconcile_and_a_wiped_status_at_once() -> None:
    cluster, keeper = FakeCluster(), Keeper()
    run_a = Ref(TRAINING_RUN, "team", "a")

    async def story() -> None:
        operator, loop = an_operator(cluster, keeper), asyncio.get_running_loop()
        cluster.put(a_run("a"))
        cluster.put_status({**a_run("a"), "status": {"stage": "Training"}})
        for moment in (0.0, 20.0):  # what a watch tells as it begins, and once more
            loop.call_at(moment, lambda: operator.hint(TRAINING_RUN, cluster.read(run_a) or {}, False))
        wiped: Document = {**a_run("a"), "status": {}}
        loop.call_at(40.0, lambda: operator.hint(TRAINING_RUN, cluster.put_status(wiped), False))
        await _for(operator, 60.0)

    run(story())
    assert [moment for _, moment in keeper.asked] == [0.0, 40.0]


class Slow(Keeper):
    """Needs 5 s to observe."""

    async def observe(self, cluster: Cluster, ref: Ref) -> Seen | None:
        seen = await super().observe(cluster, ref)
        await asyncio.sleep(5.0)
        return seen


@pytest.mark.parametrize(
    ("queue", "asked"),
    [pytest.param("cpu", [0.0], id="what was read"), pytest.param("gpu", [0.0, 5.0], id="what came after")],
)
def test_what_an_event_tells_during_a_reconcile_is_held_against_what_that_saw(queue: str, asked: list[float]) -> None:
    cluster, keeper = FakeCluster(), Slow()

    async def story() -> None:
        operator = an_operator(cluster, keeper)
        cluster.put(a_run("a", queue="cpu"))
        change(operator, cluster, 2.0, a_run("a", queue=queue))
        await _for(operator, 60.0)

    run(story())
    assert [moment for _, moment in keeper.asked] == asked


def test_a_bug_in_one_decision_is_counted_and_stops_no_other_object() -> None:
    cluster, keeper, metrics = FakeCluster(), Keeper(), Metrics(lambda: 0.0)
    cluster.put(a_run("bad", bug="yes"))
    cluster.put(a_run("good"))

    async def story() -> None:
        await _for(an_operator(cluster, keeper, metrics=metrics), 30.0)

    run(story())
    assert cluster.read(Ref(CONFIG_MAP, "team", "good")) is not None
    assert metrics.reconciles.values["TrainingRun", "error"] >= 4
    assert metrics.reconciles.values["TrainingRun", "success"] == 1


class Down(NoFaults):
    """An API server that answers no read for a while."""

    def __init__(self) -> None:
        self.down = True

    def staleness(self, verb: str, kind: Kind) -> int:
        if self.down:
            raise UnavailableError("down", kind=kind.kind, namespace="", name="", status=503)
        return 0


def test_an_outage_of_the_api_delays_and_does_not_end_the_operator() -> None:
    faults = Down()
    cluster, keeper = FakeCluster(faults=faults), Keeper()
    cluster.put(a_run("a"))

    async def story() -> None:
        asyncio.get_running_loop().call_at(60.0, setattr, faults, "down", False)
        await _for(an_operator(cluster, keeper), 100.0)

    run(story())
    assert cluster.read(Ref(CONFIG_MAP, "team", "a")) is not None


def test_a_kind_that_appears_ends_the_process_soon_and_says_why() -> None:
    cluster = FakeCluster(kinds=[kind for kind in KINDS if kind not in (WORKLOAD, RAY_JOB)])

    async def story() -> float:
        loop = asyncio.get_running_loop()
        loop.call_at(30.0, cluster.install, WORKLOAD)
        with pytest.raises(ComponentError, match=r"workloads.kueue.x-k8s.io is installed now"):
            await an_operator(cluster, Keeper(), missing=(WORKLOAD, RAY_JOB)).run()
        return loop.time()

    assert run(story()) <= 30.0 + MISSING_SECONDS


def test_an_outage_while_a_kind_is_looked_for_ends_nothing() -> None:
    class Unsure(FakeCluster):
        async def serves(self, kind: Kind) -> bool:
            if asyncio.get_running_loop().time() < 60.0:
                raise UnavailableError("down", kind=kind.kind, namespace="", name="", status=503)
            return await super().serves(kind)

    async def story() -> float:
        cluster = Unsure()
        with pytest.raises(ComponentError, match=r"workloads.kueue.x-k8s.io is installed now"):
            await an_operator(cluster, Keeper(), missing=(WORKLOAD,)).run()
        return asyncio.get_running_loop().time()

    assert 60.0 <= run(story()) <= 60.0 + MISSING_SECONDS


def test_a_lost_lease_ends_the_operator_as_itself() -> None:
    class Fenced(NoFaults):
        def before_write(self, verb: str, ref: Ref) -> None:
            raise FencedError("another operator leads")

    cluster = FakeCluster(faults=Fenced())
    cluster.put(a_run("a"))

    async def story() -> None:
        with pytest.raises(FencedError):
            await an_operator(cluster, Keeper()).run()

    run(story())


def test_conditions_of_an_object_that_is_gone_are_not_shown_any_more() -> None:
    cluster, keeper, metrics = FakeCluster(), Keeper(), Metrics(lambda: 0.0)
    ref = Ref(TRAINING_RUN, "team", "a")
    document = cluster.put(a_run("a"))
    conditions: Document = {"conditions": [{"type": "Ready", "status": "True", "reason": "Kept"}]}
    cluster.put_status({**a_run("a"), "status": conditions})

    async def story() -> None:
        operator = an_operator(cluster, keeper, metrics=metrics)
        await _for(operator, 1.0)
        assert list(metrics.conditions.values) == [("TrainingRun", "team", "a", "Ready", "True", "Kept")]
        cluster.remove(ref)
        operator.hint(TRAINING_RUN, document, True)
        await _for(operator, 1.0)
        assert metrics.conditions.values == {}

    run(story())
