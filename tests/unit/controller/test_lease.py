"""Leader election: never two that may write, and one that leads whenever one can."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta

import pytest

from drivetrain.api.documents import Document, integer, text
from drivetrain.api.errors import FencedError, UnavailableError
from drivetrain.api.kinds import CONFIG_MAP, Kind, Ref
from drivetrain.controller.cluster.lease import DURATION, Leadership, LeasedCluster
from drivetrain.controller.cluster.port import WatchEvent
from tests.support.fake_cluster import FakeCluster
from tests.support.faults import NoFaults
from tests.support.virtual_time import run

START = datetime(2026, 1, 1, tzinfo=UTC)
TIMEOUT = 10.0


class Clock:
    """A monotonic clock that the test moves."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return START + timedelta(seconds=self.seconds)


class Outage(NoFaults):
    """Writes that fail before or after they happened, while switched on."""

    def __init__(self) -> None:
        self.before = self.after = False

    def before_write(self, verb: str, ref: Ref) -> None:
        if self.before:
            raise _unavailable(ref)

    def after_write(self, verb: str, ref: Ref) -> None:
        if self.after:
            raise _unavailable(ref)


def _unavailable(ref: Ref) -> UnavailableError:
    return UnavailableError("down", kind=ref.kind.kind, namespace=ref.namespace, name=ref.name, status=0)


def candidate(cluster: FakeCluster, identity: str, clock: Clock) -> Leadership:
    return Leadership(cluster, "ns", "operator", identity, now=clock.now, monotonic=clock.monotonic)


async def test_the_first_candidate_leads_and_the_second_waits() -> None:
    cluster, clock = FakeCluster(), Clock()
    first, second = candidate(cluster, "first", clock), candidate(cluster, "second", clock)
    assert await first.step()
    assert not await second.step()
    assert (first.leads, second.leads) == (True, False)


async def test_the_second_takes_over_only_when_the_lease_stood_still_for_its_whole_duration() -> None:
    cluster, clock = FakeCluster(), Clock()
    first, second = candidate(cluster, "first", clock), candidate(cluster, "second", clock)
    await first.step()
    for clock.seconds in (10.0, 20.0, 39.0):
        assert not await second.step()
    clock.seconds = 10.0 + DURATION + 0.5
    assert await second.step()
    lease = cluster.read(second.ref)
    assert lease is not None
    assert text(lease, "spec", "holderIdentity") == "second"
    assert integer(lease, "spec", "leaseTransitions") == 1


class SlowCluster(FakeCluster):
    """A cluster whose next read takes its time, in which something else happens first."""

    meanwhile: Callable[[], Awaitable[None]] | None = None

    async def get(self, ref: Ref) -> Document | None:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            await meanwhile()
        return await super().get(ref)


async def test_a_lease_that_was_renewed_while_it_was_read_is_counted_from_after_the_read() -> None:
    cluster, clock = SlowCluster(), Clock()
    first, second = candidate(cluster, "first", clock), candidate(cluster, "second", clock)
    await first.step()

    async def renewed_under_way() -> None:
        clock.seconds = 15.0
        assert await first.step()
        clock.seconds = 19.0

    clock.seconds, cluster.meanwhile = 10.0, renewed_under_way
    assert not await second.step()
    clock.seconds = 15.0 + DURATION - TIMEOUT - 0.1
    assert first.may_write(TIMEOUT), "a write of 10 s begins, which ends at 44.9 s"
    clock.seconds = 10.0 + DURATION + 0.1
    assert not await second.step()
    clock.seconds = 19.0 + DURATION + 0.1
    assert await second.step()


async def test_a_process_that_is_started_again_under_its_name_need_not_wait() -> None:
    cluster, clock = FakeCluster(), Clock()
    await candidate(cluster, "embedded", clock).step()
    assert await candidate(cluster, "embedded", clock).step()


async def test_a_renewed_lease_is_not_taken() -> None:
    cluster, clock = FakeCluster(), Clock()
    first, second = candidate(cluster, "first", clock), candidate(cluster, "second", clock)
    for clock.seconds in range(0, 200, 20):
        assert await first.step()
        assert not await second.step()


async def test_a_paused_leader_that_wakes_up_after_losing_the_lease_may_not_write() -> None:
    cluster, clock = FakeCluster(), Clock()
    first, second = candidate(cluster, "first", clock), candidate(cluster, "second", clock)
    await first.step()
    await second.step()
    clock.seconds = DURATION + 1.0
    await second.step()
    assert not first.may_write(0.0)
    with pytest.raises(FencedError):
        await first.step()


async def test_a_write_is_refused_when_the_lease_may_run_out_before_it_ends() -> None:
    cluster, clock = FakeCluster(), Clock()
    leadership = candidate(cluster, "first", clock)
    leased = LeasedCluster(cluster, leadership, TIMEOUT)
    intent: Document = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "ns"}}
    with pytest.raises(FencedError):
        await leased.apply(intent)
    await leadership.step()
    clock.seconds = DURATION - TIMEOUT - 0.1
    await leased.apply(intent)
    clock.seconds = DURATION - TIMEOUT
    ref = Ref(CONFIG_MAP, "ns", "a")
    for write in (leased.apply(intent), leased.apply_status(intent), leased.delete(ref), leased.create_event(intent)):
        with pytest.raises(FencedError):
            await write
    assert await leased.get(ref) is not None, "reading needs no lease"


async def test_a_renewal_whose_answer_was_lost_does_not_extend_the_deadline_and_the_next_one_does() -> None:
    outage, clock = Outage(), Clock()
    cluster = FakeCluster(faults=outage)
    leadership = candidate(cluster, "first", clock)
    await leadership.step()
    clock.seconds, outage.after = 20.0, True
    with pytest.raises(UnavailableError):
        await leadership.step()
    assert not leadership.may_write(DURATION - 20.0)
    outage.after = False
    assert await leadership.step()
    assert leadership.may_write(DURATION - 1.0)


async def test_a_released_lease_is_taken_at_once() -> None:
    cluster, clock = FakeCluster(), Clock()
    first, second = candidate(cluster, "first", clock), candidate(cluster, "second", clock)
    await first.step()
    await second.step()
    await first.release()
    assert not first.leads
    assert await second.step()


async def test_nobody_releases_the_lease_of_another() -> None:
    cluster, clock = FakeCluster(), Clock()
    first, second = candidate(cluster, "first", clock), candidate(cluster, "second", clock)
    await first.step()
    before = cluster.resource_version
    await second.release()
    assert cluster.resource_version == before


def test_keeping_the_lease_ends_when_the_api_is_away_for_longer_than_the_lease() -> None:
    outage = Outage()

    async def story() -> float:
        loop = asyncio.get_running_loop()
        cluster = FakeCluster(faults=outage)
        leadership = Leadership(cluster, "ns", "operator", "only", now=lambda: START, monotonic=loop.time)
        loop.call_at(100.0, setattr, outage, "before", True)
        with pytest.raises(UnavailableError):
            await leadership.keep()
        return loop.time()

    assert 95.0 + DURATION <= run(story()) <= 100.0 + DURATION + 5.0


class StaleReads(NoFaults):
    """Reads that are late, writes whose answer is lost, at random."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def staleness(self, verb: str, kind: Kind) -> int:
        return self.rng.choice((0, 0, 1, 2))

    def after_write(self, verb: str, ref: Ref) -> None:
        if self.rng.random() < 0.2:
            raise _unavailable(ref)

    def deliver(self, event: WatchEvent) -> Sequence[WatchEvent]:
        return (event,)


@pytest.mark.parametrize("seed", range(40))
async def test_there_are_never_two_that_may_write(seed: int) -> None:
    """Three candidates step, pause and come back in a random order: safety at every moment, progress at the end."""
    rng = random.Random(seed)
    clock = Clock()
    cluster = FakeCluster(faults=StaleReads(seed))
    alive = [candidate(cluster, f"c{number}", clock) for number in range(3)]
    for number in range(300):
        clock.seconds += rng.choice((0.0, 0.1, 1.0, 7.0, 31.0))
        chosen = rng.randrange(3)
        try:
            await alive[chosen].step()
        except FencedError:
            alive[chosen] = candidate(cluster, f"c{chosen}-{number}", clock)
        except UnavailableError:
            pass  # what the fault is for; the deadline then stays what it was
        assert sum(each.leads for each in alive) <= 1
    cluster.faults = NoFaults()
    clock.seconds += 2 * DURATION
    results = []
    for _ in range(3):
        for index, each in enumerate(alive):
            try:
                results.append(await each.step())
            except FencedError:
                alive[index] = candidate(cluster, f"last-{index}", clock)
        clock.seconds += DURATION + 1.0
    assert any(results)
