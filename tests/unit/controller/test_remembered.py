"""Static objects are read once a minute, and what is decided on them is never wrong for longer than that."""

from datetime import UTC, datetime, timedelta

import pytest

from drivetrain.api.documents import Document, texts
from drivetrain.api.errors import ConflictError
from drivetrain.api.kinds import CONFIG_MAP, ROLE, SERVICE_ACCOUNT, Kind, Ref
from drivetrain.controller.cluster.lease import Leadership
from drivetrain.controller.cluster.port import Precondition
from drivetrain.controller.cluster.remembered import MEMORY_SECONDS, RememberingCluster
from tests.support.fake_cluster import FakeCluster
from tests.support.faults import NoFaults

START = datetime(2026, 1, 1, tzinfo=UTC)
ACCOUNT = Ref(SERVICE_ACCOUNT, "team", "a")


class Clock:
    """A monotonic clock that the test moves."""

    seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return START + timedelta(seconds=self.seconds)


def labelled(kind: Kind, value: str) -> Document:
    metadata: Document = {"name": "a", "namespace": "team", "labels": {"is": value}}
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def stored() -> FakeCluster:
    return FakeCluster()


@pytest.fixture
async def cluster(stored: FakeCluster, clock: Clock) -> RememberingCluster:
    leadership = Leadership(stored, "ns", "operator", "me", duration=10_000, now=clock.now, monotonic=clock.monotonic)
    await leadership.step()
    stored.requests.clear()
    return RememberingCluster(stored, leadership, 10.0, clock.monotonic)


async def seen(cluster: RememberingCluster, ref: Ref = ACCOUNT) -> str | None:
    found = await cluster.get(ref)
    return None if found is None else texts(found, "metadata", "labels")["is"]


async def test_a_static_object_is_read_once_a_minute(
    cluster: RememberingCluster, stored: FakeCluster, clock: Clock
) -> None:
    stored.put(labelled(SERVICE_ACCOUNT, "right"))
    stored.put(labelled(ROLE, "right"))
    for clock.seconds in range(180):
        assert await seen(cluster) == "right"
        if clock.seconds >= 30:
            assert await seen(cluster, Ref(ROLE, "team", "a")) == "right"
    assert stored.requests.count(("get", ACCOUNT)) == 180 / MEMORY_SECONDS
    assert len(stored.requests) == 180 / MEMORY_SECONDS + 3


async def test_what_somebody_changed_or_deleted_is_seen_within_a_minute(
    cluster: RememberingCluster, stored: FakeCluster, clock: Clock
) -> None:
    stored.put(labelled(SERVICE_ACCOUNT, "right"))
    await seen(cluster)
    stored.put(labelled(SERVICE_ACCOUNT, "wrong"))
    assert await seen(cluster) == "right"
    clock.seconds += MEMORY_SECONDS
    assert await seen(cluster) == "wrong"
    stored.remove(ACCOUNT)
    clock.seconds += MEMORY_SECONDS
    assert await seen(cluster) is None


async def test_what_is_not_there_is_looked_for_each_time(cluster: RememberingCluster, stored: FakeCluster) -> None:
    assert await seen(cluster) is None
    stored.put(labelled(SERVICE_ACCOUNT, "right"))
    assert await seen(cluster) == "right"


async def test_what_changes_by_itself_is_read_each_time(cluster: RememberingCluster, stored: FakeCluster) -> None:
    for value in ("one", "two"):
        stored.put(labelled(CONFIG_MAP, value))
        assert await seen(cluster, Ref(CONFIG_MAP, "team", "a")) == value


async def test_after_a_write_of_ours_the_object_is_read_anew(cluster: RememberingCluster, stored: FakeCluster) -> None:
    stored.put(labelled(SERVICE_ACCOUNT, "old"))
    await seen(cluster)
    await cluster.apply(labelled(SERVICE_ACCOUNT, "new"))
    assert await seen(cluster) == "new"
    await cluster.delete(ACCOUNT)
    assert await seen(cluster) is None


async def test_a_write_from_a_stale_memory_is_refused_and_the_next_look_sees_what_is(
    cluster: RememberingCluster, stored: FakeCluster
) -> None:
    stored.put(labelled(SERVICE_ACCOUNT, "old"))
    remembered = await cluster.get(ACCOUNT)
    assert remembered is not None
    stored.put(labelled(SERVICE_ACCOUNT, "somebody's"))
    with pytest.raises(ConflictError):
        await cluster.apply(labelled(SERVICE_ACCOUNT, "new"), expected=Precondition.of(remembered))
    assert await seen(cluster) == "somebody's"


async def test_a_write_whose_answer_is_lost_leaves_no_memory(cluster: RememberingCluster, stored: FakeCluster) -> None:
    class Lost(NoFaults):
        def after_write(self, verb: str, ref: Ref) -> None:
            raise ConflictError("lost", kind=ref.kind.kind, namespace=ref.namespace, name=ref.name, status=0)

    stored.put(labelled(SERVICE_ACCOUNT, "old"))
    await seen(cluster)
    stored.faults = Lost()
    with pytest.raises(ConflictError):
        await cluster.apply(labelled(SERVICE_ACCOUNT, "new"))
    assert await seen(cluster) == "new"
