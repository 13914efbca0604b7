"""What a run does while its Pods wait for Secrets, volumes or images."""

from datetime import timedelta

import pytest

from drivetrain.api.documents import (
    JSON,
)
from drivetrain.api.kinds import POD
from tests.support.bench import RunBench


def test_a_missing_secret_stalls_the_run_until_it_is_there() -> None:
    bench = RunBench()
    bench.look()
    bench.job("Initializing")
    waiting = {"reason": "CreateContainerConfigError", "message": 'secret "s3" not found'}
    bench.pod("head", status={"containerStatuses": [{"name": "ray-head", "state": {"waiting": waiting}}]})
    bench.look()
    stalled = bench.said("Stalled")
    assert stalled is not None
    assert stalled[1] == "SecretMissing"
    assert 'secret "s3" not found' in stalled[2]
    bench.pass_time(hours=2)
    bench.look()
    assert bench.record.attempt == 1, "a person's mistake uses up no attempt"
    bench.drop(POD, "head")
    bench.job("Running")
    bench.look()
    assert bench.said("Stalled") is None


def creating(sandbox: str) -> dict[str, JSON]:
    """A Pod on its node, with or without its sandbox."""
    since = "2026-01-01T00:00:00Z"
    waiting: JSON = {"name": "ray-head", "state": {"waiting": {"reason": "ContainerCreating"}}}
    condition: JSON = {"type": "PodReadyToStartContainers", "status": sandbox, "lastTransitionTime": since}
    return {"phase": "Pending", "containerStatuses": [waiting], "conditions": [condition]}


MOUNTS: JSON = {
    "volumes": [
        {"name": "source-0", "secret": {"secretName": "warehouse"}},
        {"name": "other", "secret": {"secretName": "optional", "optional": True}},
        {"name": "tmp", "emptyDir": {}},
    ]
}


def test_a_pod_that_waits_for_its_volumes_names_the_secrets_that_it_mounts() -> None:
    bench = RunBench()
    bench.look()
    bench.job("Initializing")
    bench.pod("head", spec=MOUNTS, status=creating("False"))
    assert bench.look() == timedelta(seconds=30)
    assert (bench.said("Reconciling") or ("", "", ""))[1] == "Starting"
    bench.pass_time(seconds=30)
    bench.look()
    stalled = bench.said("Stalled")
    assert stalled is not None
    assert stalled[1] == "VolumesMissing"
    assert "It mounts Secret warehouse: create what is missing" in stalled[2]
    bench.pass_time(hours=2)
    bench.look()
    assert (bench.record.attempt, bench.record.failures) == (1, ()), "a person's mistake uses up no attempt"


@pytest.mark.parametrize("waits", ["environment", "volume"])
def test_an_attempt_whose_secret_came_late_has_time_to_start(waits: str) -> None:
    bench = RunBench()
    bench.look()
    bench.job("Initializing")
    waiting: JSON = {"reason": "CreateContainerConfigError", "message": 'secret "s3" not found'}
    configuring: dict[str, JSON] = {"containerStatuses": [{"name": "ray-head", "state": {"waiting": waiting}}]}
    bench.pod("head", spec=MOUNTS, status=configuring if waits == "environment" else creating("False"))
    for _ in range(40):
        bench.pass_time(minutes=1)
        bench.look()
    bench.pod("head", spec=MOUNTS, status=creating("True"))
    bench.pass_time(minutes=9)
    bench.look()
    assert (bench.record.attempt, bench.record.failures) == (1, ()), "the readiness deadline does not count the wait"
    assert bench.record.active_seconds + 9 * 60 >= 40 * 60, "the run's deadline does"
    bench.pass_time(minutes=6)
    bench.look()
    assert "the job did not run" in bench.record.failures[-1]


def test_a_pod_that_pulls_its_image_is_not_said_to_wait_for_secrets() -> None:
    bench = RunBench()
    bench.look()
    bench.job("Initializing")
    bench.pod("head", spec=MOUNTS, status=creating("True"))
    bench.pass_time(minutes=5)
    bench.look()
    assert (bench.said("Reconciling") or ("", "", ""))[1] == "Starting"


def test_a_run_that_never_got_its_gpus_names_them_when_its_deadline_is_over() -> None:
    bench = RunBench(deadline="5m")
    bench.look()
    bench.job("Initializing")
    told = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
    waits: JSON = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": told}
    bench.pod("worker", status={"phase": "Pending", "conditions": [waits]})
    bench.look()
    assert "Insufficient nvidia.com/gpu" in (bench.said("Reconciling") or ("", "", ""))[2]
    bench.pass_time(minutes=5)
    bench.look()
    assert bench.record.reason == "DeadlineExceeded"
    assert bench.record.message == (
        f"The run used up its deadline. Its job did not run: Pod worker: {told} "
        "Raise spec.deadline in another run, or make it smaller."
    )
