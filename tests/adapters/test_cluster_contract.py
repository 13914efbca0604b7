"""What the operator relies on from an API server: the fake and the real one promise the same."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import count

import pytest

from drivetrain.api.documents import (
    JSON,
    Document,
    integer,
    labels_of,
    mapping,
    name_of,
    resource_version_of,
    sequence,
    text,
    texts,
    uid_of,
    value,
)
from drivetrain.api.errors import ConflictError, NotFoundError, RejectedError
from drivetrain.api.kinds import CONFIG_MAP, CUSTOM_RESOURCE_DEFINITION, EVENT, WORKLOAD, Kind, Ref
from drivetrain.controller.cluster.access import from_kubeconfig
from drivetrain.controller.cluster.kubernetes import KubernetesCluster, connect
from drivetrain.controller.cluster.port import ABSENT, Cluster, Precondition, WatchEvent
from tests.support.api_server import ApiServer
from tests.support.fake_cluster import FakeCluster
from tests.support.stand_ins import stand_in

_numbers = count(1)

Open = Callable[[], AbstractAsyncContextManager[Cluster]]

# Kueue's real schema is not needed here: any kind with a status subresource does.
WORKLOAD_CRD = stand_in(WORKLOAD)


@pytest.fixture(params=[pytest.param("fake"), pytest.param("real", marks=pytest.mark.binaries)])
def open_cluster(request: pytest.FixtureRequest) -> Open:
    if request.param == "fake":
        fake = FakeCluster()

        @asynccontextmanager
        async def open_fake() -> AsyncIterator[Cluster]:
            yield fake

        return open_fake
    server: ApiServer = request.getfixturevalue("api_server")

    @asynccontextmanager
    async def open_real() -> AsyncIterator[Cluster]:
        async with connect(from_kubeconfig(server.kubeconfig), _ignore) as cluster:
            await _install_workloads(cluster)
            yield cluster

    return open_real


def _ignore(verb: str, resource: str, status: int, seconds: float) -> None: ...


async def _install_workloads(cluster: KubernetesCluster) -> None:
    await cluster.apply(WORKLOAD_CRD)
    async with asyncio.timeout(30):
        while True:
            try:
                await cluster.list(WORKLOAD)
                return
            except NotFoundError:
                await asyncio.sleep(0.05)  # until the API server serves the new kind; the deadline is above


def a_name() -> str:
    return f"contract-{next(_numbers)}"


def a_config_map(name: str, data: Mapping[str, str] | None = None, **metadata: JSON) -> Document:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default", **metadata},
        "data": {"a": "1"} if data is None else data,
    }


def a_workload(name: str, **parts: JSON) -> Document:
    return {
        "apiVersion": "kueue.x-k8s.io/v1beta2",
        "kind": "Workload",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"queueName": "q"},
        **parts,
    }


def ref(name: str, kind: Kind = CONFIG_MAP) -> Ref:
    return Ref(kind, "default", name)


async def test_get_of_what_does_not_exist_is_none(open_cluster: Open) -> None:
    async with open_cluster() as cluster:
        assert await cluster.get(ref(a_name())) is None


async def test_an_applied_object_reads_back_with_kind_uid_and_version(open_cluster: Open) -> None:
    async with open_cluster() as cluster:
        name = a_name()
        stored = await cluster.apply(a_config_map(name))
        found = await cluster.get(ref(name))
    assert found is not None
    assert (text(found, "apiVersion"), text(found, "kind")) == ("v1", "ConfigMap")
    assert uid_of(found)
    assert uid_of(found) == uid_of(stored)
    assert resource_version_of(found) == resource_version_of(stored)
    assert texts(found, "data") == {"a": "1"}
    assert text(found, "metadata", "creationTimestamp").endswith("Z")


async def test_a_field_that_is_no_longer_applied_vanishes_and_others_stay(open_cluster: Open) -> None:
    async with open_cluster() as cluster:
        name = a_name()
        await cluster.apply(a_config_map(name, {"a": "1", "b": "2"}, labels={"x": "1", "y": "1"}))
        await cluster.apply(a_config_map(name, {"c": "3"}), field_manager="reporter")
        stored = await cluster.apply(a_config_map(name, {"a": "1"}, labels={"x": "1"}))
    assert texts(stored, "data") == {"a": "1", "c": "3"}
    assert labels_of(stored) == {"x": "1"}


async def test_maps_that_become_empty_vanish_with_their_last_field(open_cluster: Open) -> None:
    async with open_cluster() as cluster:
        name = a_name()
        await cluster.apply(a_config_map(name, labels={"x": "1"}))
        stored = await cluster.apply(a_config_map(name))
    assert value(stored, "metadata", "labels") is None


async def test_a_field_taken_over_is_not_removed_when_its_first_owner_drops_it(open_cluster: Open) -> None:
    async with open_cluster() as cluster:
        name = a_name()
        await cluster.apply(a_config_map(name, {"a": "1"}), field_manager="first")
        await cluster.apply(a_config_map(name, {"a": "2"}), field_manager="second")
        stored = await cluster.apply(a_config_map(name, {}), field_manager="first")
    assert texts(stored, "data") == {"a": "2"}


async def test_applying_the_same_again_changes_no_version(open_cluster: Open) -> None:
    async with open_cluster() as cluster:
        name = a_name()
        first = await cluster.apply(a_config_map(name))
        second = await cluster.apply(a_config_map(name))
    assert resource_version_of(first) == resource_version_of(second)


async def test_the_fields_a_manager_applied_are_named_in_managed_fields(open_cluster: Open) -> None:
    async with open_cluster() as cluster:
        stored = await cluster.apply(a_config_map(a_name(), labels={"x": "1"}))
    managed = [entry for entry in sequence(stored, "metadata", "managedFields") if isinstance(entry, Mapping)]
    ours = [entry for entry in managed if entry["manager"] == "drivetrain-operator"]
    assert [entry["operation"] for entry in ours] == ["Apply"]
    assert value(ours[0], "fieldsV1", "f:data", "f:a") == {}
    assert value(ours[0], "fieldsV1", "f:metadata", "f:labels", "f:x") == {}


async def test_an_apply_at_a_stale_version_conflicts_even_when_it_changes_nothing(open_cluster: Open) -> None:
    async with open_cluster() as cluster:
        name = a_name()
        first = await cluster.apply(a_config_map(name))
        await cluster.apply(a_config_map(name, {"a": "2"}), expected=Precondition.of(first))
        with pytest.raises(ConflictError) as raised:
            await cluster.apply(a_config_map(name, {"a": "2"}), expected=Precondition.of(first))
    assert (raised.value.status, raised.value.kind, raised.value.name) == (409, "ConfigMap", name)


async def test_absent_creates_and_never_overwrites(open_cluster: Open) -> None:
    async with open_cluster() as cluster:
        name = a_name()
        await cluster.apply(a_config_map(name), expected=ABSENT)
        with pytest.raises(ConflictError):
            await cluster.apply(a_config_map(name, {"a": "2"}), expected=ABSENT)
        found = await cluster.get(ref(name))
    assert found is not None
    assert texts(found, "data") == {"a": "1"}


async def test_an_update_of_a_deleted_object_conflicts_and_does_not_create_it_again(open_cluster: Open) -> None:
    async with open_cluster() as cluster:
        name = a_name()
        stored = await cluster.apply(a_config_map(name))
        await cluster.delete(ref(name))
        with pytest.raises(ConflictError):
            await cluster.apply(a_config_map(name), expected=Precondition.of(stored))
        assert await cluster.get(ref(name)) is None


async def test_an_update_of_a_namesake_conflicts(open_cluster: Open) -> None:
    async with open_cluster() as cluster:
        name = a_name()
        stored = await cluster.apply(a_config_map(name))
        await cluster.delete(ref(name))
        again = await cluster.apply(a_config_map(name))
        assert uid_of(again) != uid_of(stored)
        with pytest.raises(ConflictError):
            await cluster.apply(a_config_map(name), expected=Precondition.of(stored))


async def test_delete_refuses_another_uid_and_another_version(open_cluster: Open) -> None:
    async with open_cluster() as cluster:
        name = a_name()
        stored = await cluster.apply(a_config_map(name))
        with pytest.raises(ConflictError):
            await cluster.delete(ref(name), expected=Precondition(uid="00000000-0000-4000-8000-00000000dead"))
        with pytest.raises(ConflictError):
            await cluster.delete(ref(name), expected=Precondition(uid_of(stored), "1"))
        await cluster.delete(ref(name), expected=Precondition.of(stored))
        assert await cluster.get(ref(name)) is None


async def test_deleting_what_is_gone_is_success(open_cluster: Open) -> None:
    async with open_cluster() as cluster:
        await cluster.delete(ref(a_name()), expected=Precondition(uid="00000000-0000-4000-8000-00000000dead"))


async def test_a_name_that_kubernetes_forbids_is_rejected(open_cluster: Open) -> None:
    async with open_cluster() as cluster:
        with pytest.raises(RejectedError) as raised:
            await cluster.apply(a_config_map("Not_A_Name"))
    assert raised.value.status == 422


async def test_a_list_selects_by_labels_and_names_kind_and_version(open_cluster: Open) -> None:
    async with open_cluster() as cluster:
        group, one, two, other = a_name(), a_name(), a_name(), a_name()
        await cluster.apply(a_config_map(one, labels={"group": group, "role": "x"}))
        await cluster.apply(a_config_map(two, labels={"group": group}))
        last = await cluster.apply(a_config_map(other))
        found = await cluster.list(CONFIG_MAP, "default", {"group": group})
        both = await cluster.list(CONFIG_MAP, labels={"group": group, "role": "x"})
    assert {name_of(item) for item in found.items} == {one, two}
    assert {text(item, "kind") for item in found.items} == {"ConfigMap"}
    assert int(found.resource_version) >= int(resource_version_of(last))
    assert [name_of(item) for item in both.items] == [one]


async def test_a_list_of_a_kind_that_is_not_installed_says_not_found(open_cluster: Open) -> None:
    async with open_cluster() as cluster:
        with pytest.raises(NotFoundError):
            await cluster.list(Kind("nobody.example", "v1", "things", "Thing"))


async def test_it_tells_which_kinds_are_installed(open_cluster: Open) -> None:
    async with open_cluster() as cluster:
        assert await cluster.serves(CONFIG_MAP)
        assert await cluster.serves(WORKLOAD)
        assert not await cluster.serves(Kind("nobody.example", "v1", "things", "Thing"))
        assert not await cluster.serves(Kind("", "v1", "things", "Thing"))


async def test_the_generation_rises_with_spec_and_not_with_status_or_labels(open_cluster: Open) -> None:
    async with open_cluster() as cluster:
        name = a_name()
        generations = [
            integer(stored, "metadata", "generation")
            for stored in (
                await cluster.apply(a_workload(name)),
                await cluster.apply_status(a_workload(name, status={"phase": "new"})),
                await cluster.apply(
                    a_workload(name, metadata={"name": name, "namespace": "default", "labels": {"x": "1"}})
                ),
                await cluster.apply(a_workload(name, spec={"queueName": "other"})),
            )
        ]
    assert generations == [1, 1, 1, 2]


async def test_apply_leaves_status_alone_and_apply_status_leaves_spec_alone(open_cluster: Open) -> None:
    async with open_cluster() as cluster:
        name = a_name()
        created = await cluster.apply(a_workload(name, status={"phase": "ignored"}))
        assert not mapping(created, "status")
        reported = await cluster.apply_status(a_workload(name, spec={"queueName": "no"}, status={"phase": "new"}))
        applied = await cluster.apply(a_workload(name))
    assert text(reported, "spec", "queueName") == "q"
    assert mapping(applied, "status") == {"phase": "new"}


async def test_a_status_field_that_is_no_longer_stated_vanishes(open_cluster: Open) -> None:
    async with open_cluster() as cluster:
        name = a_name()
        await cluster.apply(a_workload(name))
        await cluster.apply_status(a_workload(name, status={"phase": "new", "why": "because"}))
        stored = await cluster.apply_status(a_workload(name, status={"phase": "done"}))
        again = await cluster.apply_status(a_workload(name, status={"phase": "done"}))
    assert mapping(stored, "status") == {"phase": "done"}
    assert resource_version_of(stored) == resource_version_of(again)


async def test_a_map_in_status_that_lost_its_entries_vanishes(open_cluster: Open) -> None:
    async with open_cluster() as cluster:
        name = a_name()
        await cluster.apply(a_workload(name))
        await cluster.apply_status(a_workload(name, status={"phase": "new", "metrics": {"rmse": 1}}))
        stored = await cluster.apply_status(a_workload(name, status={"phase": "done", "metrics": {}}))
    assert mapping(stored, "status") == {"phase": "done"}


async def test_the_status_of_an_object_that_is_gone_is_not_found_and_of_a_stale_one_conflicts(
    open_cluster: Open,
) -> None:
    async with open_cluster() as cluster:
        name = a_name()
        with pytest.raises(NotFoundError):
            await cluster.apply_status(a_workload(name, status={"phase": "new"}))
        created = await cluster.apply(a_workload(name))
        await cluster.apply_status(a_workload(name, status={"phase": "new"}), expected=Precondition.of(created))
        with pytest.raises(ConflictError):
            await cluster.apply_status(a_workload(name, status={"phase": "x"}), expected=Precondition.of(created))


async def test_an_event_is_created_once(open_cluster: Open) -> None:
    async with open_cluster() as cluster:
        name = a_name()
        event: Document = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": "default"},
            "eventTime": "2026-01-01T00:00:00.000000Z",
            "reportingController": "drivetrain.dev/operator",
            "reportingInstance": "test",
            "action": "Reconcile",
            "reason": "Testing",
            "type": "Normal",
            "note": "hello",
            "regarding": {"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "namespace": "default"},
        }
        await cluster.create_event(event)
        await cluster.create_event({**event, "note": "again"})
        found = await cluster.get(ref(name, EVENT))
    assert found is not None
    assert text(found, "note") == "hello"


async def _take(events: AsyncIterator[WatchEvent], count: int) -> list[WatchEvent]:
    taken: list[WatchEvent] = []
    async with asyncio.timeout(20):
        async for event in events:
            if event.type != "BOOKMARK":
                taken.append(event)
            if len(taken) == count:
                break
    return taken


async def test_a_watch_tells_what_happened_after_its_version_in_order(open_cluster: Open) -> None:
    async with open_cluster() as cluster:
        name, group = a_name(), a_name()
        await cluster.apply(a_config_map(a_name(), labels={"group": group}))
        start = (await cluster.list(CONFIG_MAP, "default", {"group": group})).resource_version
        async with cluster.watch(CONFIG_MAP, "default", {"group": group}, resource_version=start) as events:
            await cluster.apply(a_config_map(name, labels={"group": group}))
            await cluster.apply(a_config_map(a_name()))
            await cluster.apply(a_config_map(name, {"a": "2"}, labels={"group": group}))
            await cluster.delete(ref(name))
            seen = await _take(events, 3)
    assert [(event.type, name_of(event.object)) for event in seen] == [
        ("ADDED", name),
        ("MODIFIED", name),
        ("DELETED", name),
    ]
    assert text(seen[0].object, "kind") == "ConfigMap"
    versions = [int(resource_version_of(event.object)) for event in seen]
    assert versions == sorted(set(versions))
    assert versions[0] > int(start)


async def test_an_object_that_leaves_the_selection_is_deleted_for_the_watcher(open_cluster: Open) -> None:
    async with open_cluster() as cluster:
        name, group = a_name(), a_name()
        await cluster.apply(a_config_map(name, labels={"group": group}))
        start = (await cluster.list(CONFIG_MAP, "default", {"group": group})).resource_version
        async with cluster.watch(CONFIG_MAP, "default", {"group": group}, resource_version=start) as events:
            await cluster.apply(a_config_map(name))
            seen = await _take(events, 1)
    assert [event.type for event in seen] == ["DELETED"]


async def test_finalizers_keep_a_deleted_object_until_the_last_is_gone(open_cluster: Open) -> None:
    async with open_cluster() as cluster:
        name = a_name()
        await cluster.apply(a_config_map(name, finalizers=["tests.drivetrain.dev/wait"]))
        await cluster.delete(ref(name))
        marked = await cluster.get(ref(name))
        assert marked is not None
        assert text(marked, "metadata", "deletionTimestamp")
        await cluster.apply(a_config_map(name))
        assert await cluster.get(ref(name)) is None


@pytest.mark.parametrize("kind", [CUSTOM_RESOURCE_DEFINITION])
async def test_cluster_scoped_objects_have_no_namespace(open_cluster: Open, kind: Kind) -> None:
    async with open_cluster() as cluster:
        stored = await cluster.apply(WORKLOAD_CRD)
        found = await cluster.get(Ref(kind, "", name_of(stored)))
    assert found is not None
    assert value(found, "metadata", "namespace") is None
