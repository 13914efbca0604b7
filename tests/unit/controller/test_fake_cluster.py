"""What the in-memory API server adds to the contract: time, garbage collection, faults."""

import asyncio
from collections.abc import Sequence

import pytest

from drivetrain.api.documents import JSON, Document, mapping, name_of, text, uid_of
from drivetrain.api.errors import ConflictError, UnavailableError
from drivetrain.api.kinds import CONFIG_MAP, RAY_JOB, WORKLOAD, Kind, Ref
from drivetrain.controller.cluster.port import Precondition, WatchEvent
from tests.support.fake_cluster import FakeCluster
from tests.support.faults import Crash, NoFaults


def a_map(name: str, data: dict[str, str] | None = None, *, owners: Sequence[Document] = ()) -> Document:
    references: JSON = [
        {"apiVersion": "v1", "kind": "ConfigMap", "name": name_of(each), "uid": uid_of(each)} for each in owners
    ]
    metadata: JSON = {"name": name, "namespace": "n", **({"ownerReferences": references} if owners else {})}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data or {}}


def ref(name: str) -> Ref:
    return Ref(CONFIG_MAP, "n", name)


def test_nobody_shares_an_object_with_the_store() -> None:
    cluster = FakeCluster()
    data = {"a": "1"}
    returned = cluster.put(a_map("x", data))
    data["a"] = "changed by the writer"
    stored = returned["data"]
    assert isinstance(stored, dict)
    stored["a"] = "changed by the reader"
    assert mapping(cluster.read(ref("x")) or {}, "data") == {"a": "1"}


def test_garbage_collection_follows_owners_down_and_only_when_told() -> None:
    cluster = FakeCluster()
    top = cluster.put(a_map("top"))
    middle = cluster.put(a_map("middle", owners=[top]))
    cluster.put(a_map("leaf", owners=[middle]))
    cluster.put(a_map("free"))
    cluster.remove(ref("top"))
    assert len(cluster.find(CONFIG_MAP)) == 3
    assert cluster.collect_garbage() == 2
    assert [name_of(each) for each in cluster.find(CONFIG_MAP)] == ["free"]


def test_an_object_with_one_living_owner_stays_and_a_namesake_is_not_the_owner() -> None:
    cluster = FakeCluster()
    one, two = cluster.put(a_map("one")), cluster.put(a_map("two"))
    cluster.put(a_map("child", owners=[one, two]))
    cluster.remove(ref("one"))
    assert cluster.collect_garbage() == 0
    cluster.remove(ref("two"))
    cluster.put(a_map("two"))
    assert cluster.collect_garbage() == 1


async def test_a_watch_from_before_a_compaction_is_told_to_list_again() -> None:
    cluster = FakeCluster()
    cluster.put(a_map("x"))
    start = str(cluster.resource_version)
    cluster.put(a_map("y"))
    cluster.compact()
    async with cluster.watch(CONFIG_MAP, resource_version=start) as events:
        with pytest.raises(ConflictError) as raised:
            await anext(events)
    assert raised.value.status == 410


class Scripted(NoFaults):
    """One fault of each sort, switched by the test."""

    def __init__(self) -> None:
        self.late = 0
        self.before: BaseException | None = None
        self.after: BaseException | None = None
        self.repeat = 1

    def before_write(self, verb: str, ref: Ref) -> None:
        if self.before is not None:
            raise self.before

    def after_write(self, verb: str, ref: Ref) -> None:
        if self.after is not None:
            raise self.after

    def staleness(self, verb: str, kind: Kind) -> int:
        return self.late

    def deliver(self, event: WatchEvent) -> Sequence[WatchEvent]:
        return (event,) * self.repeat


async def test_late_reads_show_the_world_as_it_was_with_its_version() -> None:
    faults = Scripted()
    cluster = FakeCluster(faults=faults)
    cluster.put(a_map("x", {"a": "1"}))
    cluster.put(a_map("x", {"a": "2"}))
    cluster.remove(ref("x"))
    assert await cluster.get(ref("x")) is None
    faults.late = 1
    assert mapping(await cluster.get(ref("x")) or {}, "data") == {"a": "2"}
    faults.late = 2
    found = await cluster.list(CONFIG_MAP)
    assert [mapping(each, "data") for each in found.items] == [{"a": "1"}]
    assert found.resource_version == text(found.items[0], "metadata", "resourceVersion")


async def test_a_crash_before_a_write_leaves_nothing_and_after_it_everything() -> None:
    faults = Scripted()
    cluster = FakeCluster(faults=faults)
    faults.before = Crash()
    with pytest.raises(Crash):
        await cluster.apply(a_map("x"))
    assert cluster.read(ref("x")) is None
    faults.before, faults.after = None, UnavailableError("lost", kind="", namespace="", name="", status=0)
    with pytest.raises(UnavailableError):
        await cluster.apply(a_map("x"))
    assert cluster.read(ref("x")) is not None


async def test_a_write_that_is_refused_is_not_followed_by_a_fault_after_it() -> None:
    faults = Scripted()
    cluster = FakeCluster(faults=faults)
    stale = Precondition.of(await cluster.apply(a_map("x")))
    await cluster.apply(a_map("x", {"a": "1"}))
    faults.after = Crash()
    with pytest.raises(ConflictError):
        await cluster.apply(a_map("x"), expected=stale)


async def test_events_can_be_dropped_and_repeated() -> None:
    faults = Scripted()
    cluster = FakeCluster(faults=faults)
    start = str(cluster.resource_version)
    async with cluster.watch(CONFIG_MAP, resource_version=start) as events:
        faults.repeat = 2
        cluster.put(a_map("x"))
        assert [name_of((await anext(events)).object) for _ in range(2)] == ["x", "x"]
        faults.repeat = 0
        cluster.put(a_map("y"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await anext(events)
    assert [name_of(event.object) for event in cluster.changes_after(int(start), CONFIG_MAP)] == ["x", "y"]


async def test_a_kind_can_be_installed_later() -> None:
    cluster = FakeCluster(kinds=(CONFIG_MAP,))
    assert not await cluster.serves(WORKLOAD)
    cluster.install(WORKLOAD)
    assert await cluster.serves(WORKLOAD)


def test_another_controller_writes_status_and_a_user_writes_spec() -> None:
    cluster = FakeCluster()
    job: Document = {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": {"name": "j", "namespace": "n"}}
    cluster.put({**job, "spec": {"x": 1}, "status": {"ignored": True}})
    cluster.put_status({**job, "status": {"jobStatus": "RUNNING"}}, manager="kuberay")
    cluster.put({**job, "spec": {"x": 2}})
    stored = cluster.read(Ref(RAY_JOB, "n", "j"))
    assert stored is not None
    assert (stored["spec"], stored["status"]) == ({"x": 2}, {"jobStatus": "RUNNING"})
    assert mapping(stored, "metadata")["generation"] == 2
    assert [(write.verb, write.manager) for write in cluster.writes] == [
        ("create", "kubectl"),
        ("update", "kuberay"),
        ("update", "kubectl"),
    ]
