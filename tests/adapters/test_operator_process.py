"""The operator process against a real API server: Kopf's hints, the lease, the probes, and an end at any time."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from subprocess import Popen

import aiohttp
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from drivetrain.api.documents import Document, documents, text, value
from drivetrain.api.errors import NotFoundError
from drivetrain.api.kinds import (
    CONFIG_MAP,
    CUSTOM_RESOURCE_DEFINITION,
    EVENT,
    LEASE,
    TRAINING_RUN,
    WORKLOAD_V1BETA1,
    Ref,
)
from drivetrain.controller.cluster.access import from_kubeconfig
from drivetrain.controller.cluster.kubernetes import KubernetesCluster, connect
from drivetrain.controller.handlers.process import LEASE_NAME
from drivetrain.controller.handlers.runtime import MISSING_SECONDS
from tests.support.api_server import ApiServer, free_ports
from tests.support.builders import a_run

pytestmark = pytest.mark.binaries

CRD = Path(__file__).parents[2] / "crds" / "drivetrain.dev_trainingruns.yaml"
DEADLINE = 60.0
A_WORKLOAD_DEFINITION: Document = {
    "apiVersion": CUSTOM_RESOURCE_DEFINITION.api_version,
    "kind": CUSTOM_RESOURCE_DEFINITION.kind,
    "metadata": {"name": f"{WORKLOAD_V1BETA1.plural}.{WORKLOAD_V1BETA1.group}"},
    "spec": {
        "group": WORKLOAD_V1BETA1.group,
        "scope": "Namespaced",
        "names": {"plural": WORKLOAD_V1BETA1.plural, "kind": WORKLOAD_V1BETA1.kind},
        "versions": [
            {
                "name": WORKLOAD_V1BETA1.version,
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}


@dataclass(frozen=True, slots=True)
class Process:
    """A running toy operator and its probes."""

    process: Popen[bytes]
    url: str
    log: Path

    async def probe(self, path: str) -> tuple[int, str]:
        """Return status and text, 0 while nothing answers."""
        async with aiohttp.ClientSession() as session:
            try:
                async with session.get(self.url + path) as answer:
                    return answer.status, await answer.text()
            except aiohttp.ClientError:
                return 0, ""

    async def metric(self, metric: str, /, **labels: str) -> float:
        """Return the sum over all samples with these labels."""
        _, page = await self.probe("/metrics")
        return sum(
            sample.value
            for family in text_string_to_metric_families(page)
            for sample in family.samples
            if sample.name == metric and labels.items() <= sample.labels.items()
        )


Start = Callable[[str], Process]


@pytest.fixture
async def cluster(api_server: ApiServer) -> AsyncIterator[KubernetesCluster]:
    async with connect(from_kubeconfig(api_server.kubeconfig), lambda *_: None) as cluster:
        await cluster.apply(yaml.safe_load(CRD.read_text()))
        await until(lambda: cluster.serves(TRAINING_RUN))
        await until(lambda: _lists(cluster))
        yield cluster
        for document in (await cluster.list(TRAINING_RUN, "default")).items:
            await cluster.delete(Ref(TRAINING_RUN, "default", text(document, "metadata", "name")))
        await cluster.delete(Ref(LEASE, "default", LEASE_NAME))


async def _lists(cluster: KubernetesCluster) -> bool:
    try:
        await cluster.list(TRAINING_RUN)
    except NotFoundError:
        return False
    return True


@pytest.fixture
def start(api_server: ApiServer, tmp_path: Path) -> Iterator[Start]:
    with _started(api_server, tmp_path) as begin:
        yield begin


@contextmanager
def _started(server: ApiServer, folder: Path) -> Iterator[Start]:
    processes: list[Popen[bytes]] = []

    def begin(identity: str) -> Process:
        (port,) = free_ports(1)
        log = folder / f"{identity}.log"
        command = [sys.executable, "-m", "tests.support.toy_operator", str(server.kubeconfig), identity, str(port)]
        with log.open("wb") as output:
            processes.append(Popen(command, stdout=output, stderr=output, cwd=Path(__file__).parents[2]))
        return Process(processes[-1], f"http://127.0.0.1:{port}", log)

    try:
        yield begin
    finally:
        for process in processes:
            process.kill()
            process.wait()


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not await holds():  # noqa: ASYNC110 - what is waited for happens in another process
            await asyncio.sleep(0.1)


def child_of(run: str) -> Ref:
    return Ref(CONFIG_MAP, "default", f"toy-{run}")


async def test_a_run_gets_its_child_its_status_and_one_event_and_then_nothing_is_written(
    cluster: KubernetesCluster, start: Start
) -> None:
    operator = start("only")
    await until(lambda: _is(operator.probe("/readyz"), 200))
    await cluster.apply(a_run("toy-a").document(), field_manager="person")

    async def is_ready() -> bool:
        run = await cluster.get(Ref(TRAINING_RUN, "default", "toy-a"))
        return run is not None and [text(each, "status") for each in documents(run, "status", "conditions")] == ["True"]

    await until(is_ready)
    assert await cluster.get(child_of("toy-a")) is not None

    await cluster.delete(child_of("toy-a"))
    await until(lambda: _exists(cluster, child_of("toy-a")))

    async def writes() -> float:
        by_resource = [
            await operator.metric("drivetrain_api_requests_total", verb=verb, resource=resource)
            for verb, resource in (("patch", "configmaps"), ("patch", "trainingruns/status"), ("create", "events"))
        ]
        return sum(by_resource)

    async def reconciled_more_often_than(before: float) -> bool:
        return await operator.metric("drivetrain_reconciles_total") > before

    written, reconciled = await writes(), await operator.metric("drivetrain_reconciles_total")
    for number in range(3):  # hints without meaning: metadata that no decision looks at
        noise = a_run("toy-a").with_metadata(annotations={"noise": str(number)}).document()
        await cluster.apply(noise, field_manager="person")
        await until(partial(reconciled_more_often_than, reconciled))
        reconciled = await operator.metric("drivetrain_reconciles_total")
    assert await writes() == written
    events = [
        each for each in (await cluster.list(EVENT, "default")).items if text(each, "regarding", "name") == "toy-a"
    ]
    assert [text(each, "reason") for each in events] == ["Kept"]
    run = await cluster.get(Ref(TRAINING_RUN, "default", "toy-a"))
    assert run is not None
    assert set(_keys(value(run, "metadata", "annotations"))) == {"noise"}, "Kopf leaves no annotation behind"
    assert value(run, "metadata", "finalizers") is None
    assert await operator.metric("drivetrain_resource_condition", name="toy-a", type="Ready", status="True") == 1.0
    assert await operator.metric("drivetrain_leader") == 1.0
    assert (await operator.probe("/healthz"))[0] == 200
    assert 0.0 < await operator.metric("drivetrain_watch_age_seconds", resource="trainingruns") < DEADLINE


async def test_the_standby_is_ready_writes_nothing_and_takes_over_when_the_leader_leaves(
    cluster: KubernetesCluster, start: Start
) -> None:
    first = start("first")
    await until(lambda: _is(first.probe("/readyz"), 200))
    await until(lambda: _more(first.metric("drivetrain_leader"), 0.0))
    second = start("second")
    await until(lambda: _is(second.probe("/readyz"), 200))
    await until(lambda: _more(second.metric("drivetrain_watch_age_seconds", resource="trainingruns"), 0.0))
    applied = time.monotonic()
    await cluster.apply(a_run("toy-b").document(), field_manager="person")
    await until(lambda: _exists(cluster, child_of("toy-b")))
    await until(lambda: _heard_since(second, applied))
    assert await second.metric("drivetrain_queue_depth") == 0.0, "what it hears of is not what it has to do"
    assert await second.metric("drivetrain_queue_oldest_seconds") == 0.0
    assert await second.metric("drivetrain_leader") == 0.0
    assert await second.metric("drivetrain_api_requests_total", verb="patch") == 0.0
    first.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(first.process.wait, DEADLINE) == 0
    await until(lambda: _more(second.metric("drivetrain_leader"), 0.0))
    await cluster.delete(child_of("toy-b"))
    await until(lambda: _exists(cluster, child_of("toy-b")))


async def test_a_leader_that_slept_through_its_lease_ends_without_another_write(
    cluster: KubernetesCluster, start: Start
) -> None:
    first = start("sleeper")
    await until(lambda: _more(first.metric("drivetrain_leader"), 0.0))
    os.kill(first.process.pid, signal.SIGSTOP)
    lease = await cluster.get(Ref(LEASE, "default", LEASE_NAME))
    assert lease is not None
    taken = {**lease, "spec": {**dict(_items(lease["spec"])), "holderIdentity": "second"}}
    await cluster.apply({key: taken[key] for key in ("apiVersion", "kind", "spec")} | {"metadata": _name()})
    await cluster.apply(a_run("toy-c").document(), field_manager="person")
    os.kill(first.process.pid, signal.SIGCONT)
    assert await asyncio.to_thread(first.process.wait, DEADLINE) != 0
    assert "is held by second now" in first.log.read_text()
    lease = await cluster.get(Ref(LEASE, "default", LEASE_NAME))
    assert lease is not None
    assert text(lease, "spec", "holderIdentity") == "second"


async def test_an_operator_ends_to_watch_a_kind_soon_after_it_was_installed(
    cluster: KubernetesCluster, start: Start
) -> None:
    operator = start("early")
    await until(lambda: _is(operator.probe("/readyz"), 200))
    await cluster.apply(A_WORKLOAD_DEFINITION)
    try:
        began = time.monotonic()
        assert await asyncio.to_thread(operator.process.wait, DEADLINE) == 1
        assert time.monotonic() - began < MISSING_SECONDS + 10.0, "long before the next resync"
        assert "workloads.kueue.x-k8s.io is installed now: restarting to watch it." in operator.log.read_text()
        again = start("again")
        await until(lambda: _more(again.metric("drivetrain_api_requests_total", verb="watch", resource="workloads"), 0))
    finally:
        await cluster.delete(Ref(CUSTOM_RESOURCE_DEFINITION, "", "workloads.kueue.x-k8s.io"))
        await until(lambda: _is_not_served(cluster))


async def _is_not_served(cluster: KubernetesCluster) -> bool:
    return not await cluster.serves(WORKLOAD_V1BETA1)


def _name() -> dict[str, str]:
    return {"name": LEASE_NAME, "namespace": "default"}


async def _is(probe: Awaitable[tuple[int, str]], status: int) -> bool:
    return (await probe)[0] == status


async def _more(found: Awaitable[float], than: float) -> bool:
    return await found > than


async def _heard_since(process: Process, moment: float) -> bool:
    return await process.metric("drivetrain_watch_age_seconds", resource="trainingruns") < time.monotonic() - moment


async def _exists(cluster: KubernetesCluster, ref: Ref) -> bool:
    return await cluster.get(ref) is not None


def _keys(found: object) -> list[str]:
    return list(found) if isinstance(found, dict) else []


def _items(found: object) -> list[tuple[str, str]]:
    return list(found.items()) if isinstance(found, dict) else []
