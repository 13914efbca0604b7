"""What the operator does while one endpoint is under traffic: the real controllers and watches, in virtual time."""

import asyncio
import random
from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timedelta

import pytest

from drivetrain.api.documents import texts
from drivetrain.api.kinds import CONFIG_MAP, DEPLOYMENT, DRIVETRAIN_PROJECT, KINDS, Kind, Ref
from drivetrain.api.names import report_name
from drivetrain.api.report import KpiEvidence, ServingReport
from drivetrain.controller.handlers.metrics import Metrics
from drivetrain.controller.handlers.runtime import Operator
from tests.support.fake_cluster import FakeCluster
from tests.support.operator_world import NAMESPACE, World, a_quick_project
from tests.support.ray_programs import version_of
from tests.support.virtual_time import run

REPORT = Ref(CONFIG_MAP, NAMESPACE, report_name("Deployment", "shop"))
LATENCY = 0.15
"""Seconds after which a watch tells of a change: Kopf gathers events for 0.1 s."""
SECONDS = 60


@pytest.fixture
def world() -> World:
    """A project whose first version serves, with nothing under way."""
    world = World(1)
    world.declare(a_quick_project())
    world.settle(quiet=3, done=lambda: world.stable_version() == version_of("shop-1"))
    return world


def looks(metrics: Metrics) -> Mapping[str, float]:
    """Reconciles by kind."""
    assert {result for _, result in metrics.reconciles.values} == {"success"}
    return {kind: count for (kind, _), count in metrics.reconciles.values.items()}


async def tell(cluster: FakeCluster, operator: Operator, kind: Kind) -> None:
    """What Kopf does from now on: it lists, and then it watches."""
    loop, version = asyncio.get_running_loop(), str(cluster.resource_version)
    for document in cluster.find(kind):
        operator.hint(kind, document, False)
    async with cluster.watch(kind, resource_version=version) as events:
        async for event in events:
            loop.call_later(LATENCY, operator.hint, kind, event.object, event.type == "DELETED")


def report(cluster: FakeCluster, number: int, at: datetime) -> None:
    """The Monitor reports once more: a KPI over other decisions."""
    live = cluster.read(REPORT) or {}
    ((key, written),) = texts(live, "data").items()
    kpi = KpiEvidence(mean=0.5 + number / 1000, decisions=1000 + number)
    changed = {"at": at, "kpi": kpi, "matured": 1000 + number}
    told = ServingReport.model_validate_json(written).model_copy(update=changed)
    cluster.put({**live, "data": {key: told.model_dump_json(by_alias=True)}}, "monitor")


def test_a_report_that_changes_numbers_is_one_look_at_the_deployment_and_one_at_its_project(world: World) -> None:
    metrics, cluster, base = Metrics(lambda: 0.0), world.cluster, world.now

    async def story() -> None:
        loop = asyncio.get_running_loop()
        operator = Operator(
            cluster,
            tuple(world.bound.values()),
            namespaces=(NAMESPACE,),
            missing=(),
            metrics=metrics,
            now=lambda: base + timedelta(seconds=loop.time()),
            rng=random.Random(1),
            identity="test",
        )
        watches = [asyncio.create_task(tell(cluster, operator, kind)) for kind in KINDS]
        running = asyncio.create_task(operator.run())
        await asyncio.sleep(10.0)
        before, asked = looks(metrics), len(cluster.requests)
        for number in range(SECONDS):
            report(cluster, number, base + timedelta(seconds=loop.time()))
            await asyncio.sleep(1.0)
        after = looks(metrics)
        for kind in (DEPLOYMENT, DRIVETRAIN_PROJECT):
            assert after[kind.kind] - before[kind.kind] == SECONDS, kind.kind
        written = Counter(ref.kind for verb, ref in cluster.requests[asked:] if verb == "patch")
        assert written == {DEPLOYMENT: SECONDS, DRIVETRAIN_PROJECT: SECONDS}, "the numbers that each status shows"
        await asyncio.sleep(100.0)
        assert looks(metrics) == after, "nothing happens, and nobody looks"
        for task in (running, *watches):
            task.cancel()
        await asyncio.gather(running, *watches, return_exceptions=True)

    run(story())
