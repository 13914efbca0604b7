"""A Monitor that reports no more is told, and what it said last starts no training and no rollout."""

from datetime import timedelta

from drivetrain.api.documents import name_of
from drivetrain.api.kinds import RAY_SERVICE
from drivetrain.api.ledger import ProjectLedger
from drivetrain.controller.core.silence import SILENT_AFTER
from drivetrain.serving.monitor import FAILED_SECONDS
from drivetrain.serving.pacing import LONGEST
from tests.support.bench import ServingBench
from tests.support.builders import a_deployment
from tests.unit.controller.test_deployment import VERSION
from tests.unit.controller.test_project import ProjectBench

SOON = timedelta(minutes=2, seconds=59)


def a_bench() -> ServingBench:
    bench = ServingBench(a_deployment().document())
    bench.up()
    return bench


def degraded(bench: ServingBench) -> str:
    return (bench.said("Degraded") or ("", ""))[1]


def test_a_monitor_that_reports_no_more_is_told_after_three_minutes_and_until_it_reports() -> None:
    bench = a_bench()
    bench.pass_time(minutes=2)
    bench.tell()
    assert bench.look() == timedelta(minutes=3)
    bench.now += SOON
    assert bench.look() == timedelta(seconds=1)
    assert degraded(bench) == ""
    bench.pass_time(seconds=1)
    assert bench.look() is None
    silent = bench.said("Degraded")
    assert silent is not None
    assert silent[1] == "MonitorSilent"
    assert "has not reported since 2026-01-01 00:02:00 UTC" in silent[2]
    assert (bench.said("Ready") or ("",))[0] == "True"
    assert "MonitorSilent" in bench.events()
    bench.tell()
    assert degraded(bench) == ""


def test_a_cluster_that_came_up_has_three_minutes_for_its_first_report() -> None:
    bench = a_bench()
    bench.now += SOON
    bench.look()
    assert degraded(bench) == ""
    bench.pass_time(seconds=1)
    bench.look()
    assert "has never reported" in (bench.said("Degraded") or ("", "", ""))[2]


def test_a_cluster_that_came_back_has_three_minutes_as_well() -> None:
    bench = a_bench()
    bench.tell()
    bench.pass_time(hours=1)
    bench.set_status(
        RAY_SERVICE,
        name_of(bench.services()[0]),
        activeServiceStatus={"rayClusterName": "another"},
        conditions=[{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:59:00Z"}],
    )
    assert bench.look() == timedelta(minutes=2)
    assert degraded(bench) == ""


def test_an_endpoint_that_is_not_up_says_why_and_nothing_of_its_monitor() -> None:
    bench = a_bench()
    bench.tell()
    bench.set_status(RAY_SERVICE, name_of(bench.services()[0]))
    bench.pass_time(hours=1)
    bench.look()
    assert degraded(bench) == ""


def test_a_report_from_a_clock_that_is_ahead_is_not_silence() -> None:
    bench = a_bench()
    bench.tell(at=bench.now + timedelta(minutes=10))
    bench.pass_time(minutes=9)
    bench.look()
    assert degraded(bench) == ""


def test_no_rollout_begins_while_nobody_would_watch_it() -> None:
    bench = a_bench()
    bench.tell()
    bench.pass_time(minutes=4)
    bench.approve(ProjectLedger(approved=VERSION))
    assert bench.record.candidate is None
    bench.tell()
    assert bench.record.candidate is not None


def test_drift_that_a_monitor_told_before_it_fell_silent_starts_no_training() -> None:
    bench = ProjectBench()
    bench.serve(bench.finish(1))
    bench.pass_time(days=10)
    since = bench.now - timedelta(days=1)
    drift = {"calibration": {"severity": "Severe", "message": "moved", "changed_at": since}}
    bench.report(at=bench.now - timedelta(minutes=3), drift=drift, explored=10000, explored_since_change=10000)
    assert bench.runs() == ["shop-1"]
    bench.report(drift=drift, explored=10000, explored_since_change=10000)
    assert bench.runs() == ["shop-1", "shop-2"]


def test_a_monitor_that_failed_is_told_in_its_own_words() -> None:
    bench = a_bench()
    bench.tell(trouble={"reason": "MonitorFailed", "message": "ZeroDivisionError: by nothing"})
    told = bench.said("Degraded")
    assert told is not None
    assert told[1] == "MonitorFailed"
    assert told[2].startswith("The endpoint's Monitor failed: ZeroDivisionError: by nothing. It tries again")


def test_a_monitor_that_fails_now_and_then_is_heard_in_time() -> None:
    assert timedelta(seconds=FAILED_SECONDS) + 2 * LONGEST < SILENT_AFTER
