"""A Monitor lives on whatever goes wrong in one step: it says so, and counts nothing twice and everything once."""

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from drivetrain.api import layout
from drivetrain.api.report import MONITOR_FAILED, Trouble
from drivetrain.serving import monitor as shell
from drivetrain.serving.evidence import Evidence
from tests.unit.serving.conftest import View
from tests.unit.serving.logs import Traffic
from tests.unit.serving.test_monitor import KPI, evidence_of, monitor, seconds, visit
from tests.unit.serving.worlds import World, policy, publish

UNFORESEEN = Trouble(reason=MONITOR_FAILED, message="ZeroDivisionError: by nothing")


@pytest.fixture
def traffic(view: View, world: World) -> Traffic:
    return Traffic(view(stable=policy(publish(world.store), kpi=KPI)), units=1500)


def failing(method: Callable[..., Any], times: int) -> Callable[..., Any]:
    """The method, which at first does nothing but raise."""
    left = [times]

    def broken(*arguments: Any) -> Any:
        left[0] -= 1
        if left[0] >= 0:
            raise ZeroDivisionError("by nothing")
        return method(*arguments)

    return broken


def test_a_step_that_fails_in_the_middle_counts_nothing_twice_and_everything_once(
    world: World, traffic: Traffic, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(12):
        visit(world, traffic, seconds(10 * number))
    steady, _ = monitor(world, traffic)
    for number in range(20):
        steady.step(seconds(60 + 10 * number))
    for info in list(world.store.list(layout.monitor("juice"))):
        world.store.delete(info.key)

    watching, _ = monitor(world, traffic)
    for number in range(20):
        if number == 6:
            monkeypatch.setattr(Evidence, "feed", failing(Evidence.feed, 1))
            with pytest.raises(ZeroDivisionError):
                watching.step(seconds(60 + 10 * number))
        watching.step(seconds(60 + 10 * number))
    assert evidence_of(watching.report) == evidence_of(steady.report)
    assert watching.report is not None
    assert watching.report.matured == 1200


def test_what_fails_for_a_while_is_reported_with_the_last_numbers_and_again_twice_a_minute(
    world: World, traffic: Traffic, monkeypatch: pytest.MonkeyPatch
) -> None:
    watching, written = monitor(world, traffic)
    visit(world, traffic, seconds(0))
    watching.step(seconds(70))
    monkeypatch.setattr(Evidence, "findings", failing(Evidence.findings, 5))
    for number in (75, 105, 110, 120, 136):
        with pytest.raises(ZeroDivisionError):
            watching.step(seconds(number))
    told = [(report.at, report.trouble, report.matured) for report in written.reports]
    assert told == [(seconds(70), None, 100), (seconds(105), UNFORESEEN, 100), (seconds(136), UNFORESEEN, 100)]
    watching.step(seconds(140))
    assert written.reports[-1].trouble is None
    assert written.reports[-1].matured == 100


async def test_a_monitor_whose_steps_and_looks_fail_is_still_there_and_logs_why(
    world: World, traffic: Traffic, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    watching, _ = monitor(world, traffic)
    watching.step(seconds(0))
    stepped, looked = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def step(at: datetime) -> None:
        if failed:
            loop.call_soon_threadsafe(stepped.set)
        failed.append(at)
        raise ZeroDivisionError("by nothing")

    def look(*_: Any) -> None:
        loop.call_soon_threadsafe(looked.set)
        raise ZeroDivisionError("by nothing")

    failed: list[datetime] = []
    monkeypatch.setattr(watching, "step", step)
    monkeypatch.setattr(type(watching._watch), "look", look)
    monkeypatch.setattr(shell, "FAILED_SECONDS", 0.0)
    with caplog.at_level(logging.ERROR):
        running = asyncio.create_task(watching.run())
        await asyncio.wait_for(asyncio.gather(stepped.wait(), looked.wait()), 10)
    assert not running.done()
    running.cancel()
    assert watching.trouble == UNFORESEEN.message
    assert "Traceback" in caplog.text
