"""What the Monitor reports while its store does not answer."""

from typing import Any

import pytest

from drivetrain.api.errors import StoreError
from drivetrain.api.report import Trouble
from drivetrain.store import ObjectStore
from tests.unit.serving.conftest import View
from tests.unit.serving.logs import Traffic
from tests.unit.serving.test_monitor import KPI, monitor, seconds, visit
from tests.unit.serving.worlds import World, policy, publish


class AwayStore:
    """The store of an endpoint, which does not answer while it is away."""

    def __init__(self, store: ObjectStore) -> None:
        self._store, self.away = store, False
        self.refused = ""
        """What alone it does not do while it is there."""

    def __getattr__(self, name: str) -> Any:
        if self.away or name == self.refused:
            raise StoreError("StoreUnavailable", "The store did not answer.")
        return getattr(self._store, name)


def test_a_store_that_stays_away_is_reported_and_what_was_counted_stays(view: View, world: World) -> None:
    traffic = Traffic(view(stable=policy(publish(world.store), kpi=KPI)), units=1500)
    store: Any = AwayStore(world.store)
    world.store = store
    watching, written = monitor(world, traffic)
    visit(world, traffic, seconds(0))
    watching.step(seconds(70))
    store.away = True
    for number in (75, 80, 86):
        assert written.reports[-1].trouble is None, "a short failure is nobody's concern"
        with pytest.raises(StoreError):
            watching.step(seconds(number))
    troubled = written.reports[-1]
    assert troubled.trouble == Trouble(reason="StoreUnavailable", message="The store did not answer.")
    assert troubled.matured == 100
    store.away = False
    watching.step(seconds(90))
    assert written.reports[-1].trouble is None


def test_a_store_that_fails_while_the_checkpoint_is_read_delays_the_monitor_and_does_not_stop_it(
    view: View, world: World
) -> None:
    traffic = Traffic(view(stable=policy(publish(world.store), kpi=KPI)), units=1500)
    visit(world, traffic, seconds(0))
    before, _ = monitor(world, traffic)
    before.step(seconds(70))
    store: Any = AwayStore(world.store)
    world.store = store
    watching, written = monitor(world, traffic)
    store.refused = "list"
    with pytest.raises(StoreError):
        watching.step(seconds(75))
    store.refused = ""
    visit(world, traffic, seconds(10))
    watching.step(seconds(80))
    assert written.reports[-1].matured == 200


def test_what_could_not_be_read_once_is_read_with_the_next_step(view: View, world: World) -> None:
    traffic = Traffic(view(stable=policy(publish(world.store), kpi=KPI)), units=1500)
    store: Any = AwayStore(world.store)
    world.store = store
    watching, written = monitor(world, traffic)
    watching.step(seconds(0))
    visit(world, traffic, seconds(5))
    visit(world, traffic, seconds(15))
    store.refused = "get"
    with pytest.raises(StoreError):
        watching.step(seconds(30))
    store.refused = ""
    watching.step(seconds(35))
    watching.step(seconds(85))
    report = written.reports[-1]
    assert report.matured == 200
    assert report.kpi is not None
    assert report.kpi.mean > 0.1, "the outcomes are in as well"


def test_an_object_that_was_deleted_after_it_was_listed_stops_nothing(view: View, world: World) -> None:
    traffic = Traffic(view(stable=policy(publish(world.store), kpi=KPI)), units=1500)
    store: Any = AwayStore(world.store)
    world.store = store
    watching, written = monitor(world, traffic)
    watching.step(seconds(0))
    visit(world, traffic, seconds(5))
    store.refused = "get"
    with pytest.raises(StoreError):
        watching.step(seconds(30))
    store.refused = ""
    for info in list(store.list("log/")):
        store.delete(info.key)
    watching.step(seconds(100))
    assert written.reports[-1].matured == 0
