"""When a run's attempt fails, when the next one begins, and when none is left: decisions over a fake cluster."""

from datetime import timedelta

import pytest

from drivetrain.api.documents import JSON, labels_of, name_of
from drivetrain.api.kinds import POD, RAY_JOB
from tests.support.bench import RunBench


def test_the_next_attempt_waits_until_every_pod_of_the_last_is_gone() -> None:
    bench = RunBench()
    bench.running()
    bench.pod("head")
    bench.tell(result={"state": "Failed", "reason": "HeadLost", "message": ""})
    bench.look()
    assert bench.cluster.find(RAY_JOB) == ()
    assert bench.record.attempt == 1
    reconciling = bench.said("Reconciling")
    assert reconciling is not None
    assert reconciling[1] == "Restarting"
    bench.drop(POD, "head")
    bench.look()
    assert [name_of(job) for job in bench.cluster.find(RAY_JOB)] == ["shop-1-a2"]
    assert labels_of(bench.cluster.find(RAY_JOB)[0])["drivetrain.dev/attempt"] == "2"


def test_a_pod_lost_with_its_node_blocks_for_five_minutes_beyond_its_grace() -> None:
    bench = RunBench()
    bench.running()
    lost = {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager"}
    metadata = {"finalizers": ["test/hold"]}
    bench.pod("head", metadata=metadata, spec={"nodeName": "node-7"}, status={"conditions": [lost]})
    bench.drop(POD, "head")  # the finalizer keeps it Terminating, as a node that does not answer would
    bench.tell(result={"state": "Failed", "reason": "HeadLost", "message": ""})
    bench.look()
    bench.pass_time(minutes=4)
    bench.look()
    assert bench.record.attempt == 1
    bench.pass_time(minutes=2)
    bench.look()
    assert bench.record.attempt == 2


def test_attempts_that_fail_one_after_the_other_stall_the_run() -> None:
    bench = RunBench(attempts=2)
    bench.running()
    for attempt in (1, 2):
        bench.tell(attempt=attempt, result={"state": "Failed", "reason": "DriverFailed", "message": "no space left"})
        bench.look()
        bench.look()
        if attempt == 1:
            bench.job("Running", attempt=2)
            bench.look()
    stalled = bench.said("Stalled")
    assert stalled is not None
    assert stalled[1] == "AttemptsExhausted"
    assert "DriverFailed: no space left" in stalled[2]
    assert bench.cluster.find(RAY_JOB) == ()


@pytest.mark.parametrize("reason", ["StoreUnavailable", "TrackingFailed"])
def test_what_a_run_could_not_reach_gets_longer_each_time_to_come_back_before_the_next_attempt(reason: str) -> None:
    bench = RunBench(attempts=4)
    bench.running()
    failed = {"state": "Failed", "reason": reason, "message": "no answer"}
    for attempt, minutes in ((1, 1), (2, 5), (3, 15)):
        due = bench.now + timedelta(minutes=minutes)
        bench.tell(attempt=attempt, result=failed)
        bench.look()
        bench.look()
        told = f"The next attempt begins at {due:%H:%M:%S} UTC. Attempt {attempt}: {reason}: no answer"
        assert bench.said("Reconciling") == ("True", "Restarting", told)
        bench.pass_time(minutes=minutes, seconds=-10)
        assert bench.look() == timedelta(seconds=10)
        assert bench.record.attempt == attempt
        bench.pass_time(seconds=10)
        bench.look()
        assert bench.record.attempt == attempt + 1
        bench.job("Running", attempt=attempt + 1)
        bench.look()
    bench.tell(attempt=4, result=failed)
    bench.look()
    bench.look()
    stalled = bench.said("Stalled")
    assert stalled is not None
    assert stalled[1] == "AttemptsExhausted"


def test_a_job_that_does_not_run_in_time_fails_its_attempt_and_says_what_its_pod_waits_for() -> None:
    bench = RunBench()
    bench.look()
    bench.job("Initializing")
    waiting = {"reason": "ImagePullBackOff", "message": "no such image"}
    bench.pod("head", status={"containerStatuses": [{"name": "ray-head", "state": {"waiting": waiting}}]})
    wake = bench.look()
    assert wake == timedelta(minutes=15)
    bench.pass_time(minutes=15)
    bench.look()
    assert "no such image" in bench.record.failures[0]


def test_a_silent_driver_fails_its_attempt() -> None:
    bench = RunBench()
    bench.running()
    bench.pass_time(minutes=9)
    bench.tell()
    bench.look()
    bench.pass_time(minutes=9)
    bench.look()
    assert not bench.record.failures
    bench.pass_time(minutes=2)
    bench.look()
    assert "silent" in bench.record.failures[0]


def test_a_job_that_ended_without_a_result_gets_ten_seconds_for_it_and_is_looked_at_then() -> None:
    bench = RunBench()
    bench.running()
    bench.job("Failed", endTime=bench.now.isoformat(), message="exit code 137")
    wake = bench.look()
    assert not bench.record.failures
    assert wake == timedelta(seconds=10)
    bench.pass_time(seconds=wake.total_seconds())
    bench.look()
    assert "exit code 137" in bench.record.failures[0]


OUT_OF_MEMORY: JSON = {
    "containerStatuses": [
        {"name": "ray-worker", "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}, "state": {}}
    ]
}


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (OUT_OF_MEMORY, "Pod w-1: ray-worker was OOMKilled; ask for more memory."),
        (
            {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."},
            "Pod w-1 was evicted by its node: The node was low on resource: memory.",
        ),
    ],
    ids=["out of memory", "evicted"],
)
def test_what_a_pod_died_of_is_told_with_the_failure_when_the_pod_is_long_gone(status: JSON, told: str) -> None:
    bench = RunBench()
    bench.running()
    bench.pod("w-1", status=status)
    bench.look()
    bench.drop(POD, "w-1")
    bench.job("Failed", message="Job driver failed.")
    bench.pass_time(minutes=10)
    bench.look()
    assert bench.record.failures[-1].endswith(f"(Job driver failed.). {told}")
    assert (bench.record.attempt, bench.record.killed) == (2, "")
