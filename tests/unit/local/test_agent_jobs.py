"""RayJobs: what KubeRay 1.6.2 does in each of its states, done here."""

from dataclasses import replace

import pytest

from drivetrain.api.documents import Document, mapping
from drivetrain.api.kinds import RAY_CLUSTER, Ref
from drivetrain.local.agent.effects import Apply, Delete, Effect, Hold, SetStatus, Stop, Submit
from drivetrain.local.agent.facts import RayFacts, RayJobInfo
from drivetrain.local.agent.jobs import FINALIZER, SUBMITTER_WITHIN, active_submission, decide, to_follow
from tests.unit.local.worlds import (
    NOW,
    STARTED,
    a_job,
    a_running_job,
    a_template,
    a_world,
    its_cluster,
    its_head,
    ray_with,
    without_ray,
)

UNKNOWN = RayFacts(jobs={"train-abcde": None})


def status_of(effects: tuple[Effect, ...]) -> Document:
    """The one status that the effects set."""
    statuses = [effect.status for effect in effects if isinstance(effect, SetStatus)]
    assert len(statuses) == 1, effects
    return statuses[0]


def test_a_new_rayjob_is_held_before_anything_else() -> None:
    job = a_job({}, {"finalizers": []})
    assert decide(job, a_world(job), "abcde") == (Hold(job, (FINALIZER,)),)


def test_a_name_that_kuberay_refuses_is_refused() -> None:
    name = "t" * 48
    job = a_job({}, {"name": name, "finalizers": []})
    status = status_of(decide(job, a_world(job), "abcde"))
    assert status["jobDeploymentStatus"] == status["reason"] == "ValidationFailed"
    assert status["message"] == "The RayJob metadata is invalid: RayJob name should be no more than 47 characters"
    refused = a_job(dict(status), {"name": name, "finalizers": []})
    assert decide(refused, a_world(refused), "abcde") == ()
    allowed = a_job({}, {"name": name[1:]})
    assert status_of(decide(allowed, a_world(allowed), "abcde"))["jobDeploymentStatus"] == "Initializing"


def test_names_are_written_to_status_before_anything_is_created() -> None:
    job = a_job()
    assert decide(job, a_world(job), "abcde") == (
        SetStatus(
            job,
            {
                "jobId": "train-abcde",
                "rayClusterName": "train-abcde",
                "jobStatus": "",
                "jobDeploymentStatus": "Initializing",
                "startTime": "2026-03-01T12:00:00Z",
                "observedGeneration": 1,
            },
        ),
    )


def test_a_given_job_id_is_kept() -> None:
    job = a_job(jobId="mine")
    assert status_of(decide(job, a_world(job), "abcde"))["jobId"] == "mine"


def initializing(**spec: bool | int) -> Document:
    return a_job(
        {
            "jobDeploymentStatus": "Initializing",
            "jobId": "train-abcde",
            "rayClusterName": "train-abcde",
            "startTime": STARTED,
        },
        **spec,
    )


def test_an_initializing_job_gets_its_cluster() -> None:
    job = initializing()
    (effect,) = decide(job, a_world(job), "other")
    assert isinstance(effect, Apply)
    assert effect.create_only
    assert mapping(effect.document, "metadata")["name"] == "train-abcde"
    assert mapping(effect.document, "spec") == mapping(job, "spec", "rayClusterSpec")


def test_a_job_runs_when_its_cluster_is_ready() -> None:
    job = initializing()
    waiting = its_cluster(job, "train-abcde", state="")
    assert status_of(decide(job, a_world(job, waiting), "x"))["jobDeploymentStatus"] == "Initializing"
    ready = its_cluster(job, "train-abcde")
    assert status_of(decide(job, a_world(job, ready), "x"))["jobDeploymentStatus"] == "Running"


def test_a_job_that_ray_does_not_know_is_submitted_with_the_environment_of_its_head() -> None:
    template = a_template(
        env=[{"name": "SPEC", "value": "/etc/spec/run.json"}],
        volumeMounts=[{"name": "spec", "mountPath": "/etc/spec"}],
    )
    job = a_running_job(
        entrypoint="python -m train --spec=/etc/spec/run.json",
        rayClusterSpec={"headGroupSpec": {"template": template}},
        runtimeEnvYAML="env_vars: {EXTRA: '1'}",
    )
    cluster = its_cluster(job, "train-abcde")
    head = its_head(cluster)
    (effect,) = decide(job, a_world(job, cluster, head, ray=UNKNOWN), "x")
    assert isinstance(effect, Submit)
    folder = f"/state/pods/{mapping(head, 'metadata')['uid']}/spec"
    assert effect.submission_id == "train-abcde"
    assert effect.entrypoint == f"python -m train --spec={folder}/run.json"
    assert effect.runtime_env == {
        "env_vars": {
            "EXTRA": "1",
            "SPEC": f"{folder}/run.json",
            "RAY_CLUSTER_NAME": "train-abcde",
            "RAY_CLUSTER_NAMESPACE": "team",
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": "6443",
        }
    }


def test_a_job_waits_for_its_head_pod() -> None:
    job = a_running_job()
    cluster = its_cluster(job, "train-abcde")
    assert decide(job, a_world(job, cluster, its_head(cluster, up=False), ray=UNKNOWN), "x") == ()


def test_a_submission_that_ray_refuses_fails_the_job() -> None:
    job = a_running_job()
    cluster = its_cluster(job, "train-abcde")
    status = status_of(decide(job, a_world(job, cluster, its_head(cluster), ray=UNKNOWN), "x", "bad runtime_env"))
    assert (status["jobDeploymentStatus"], status["reason"], status["message"]) == (
        "Failed",
        "SubmissionFailed",
        "bad runtime_env",
    )


@pytest.mark.parametrize(
    ("ray_status", "phase", "reason", "failed", "succeeded"),
    [
        ("SUCCEEDED", "Complete", None, 0, 1),
        ("FAILED", "Failed", "AppFailed", 1, 0),
        ("STOPPED", "Complete", None, 0, 0),
    ],
)
def test_the_end_of_the_ray_job_is_the_end_of_the_rayjob(
    ray_status: str, phase: str, reason: str | None, failed: int, succeeded: int
) -> None:
    job = a_running_job("RUNNING")
    cluster = its_cluster(job, "train-abcde")
    world = a_world(job, cluster, its_head(cluster), ray=ray_with("train-abcde", ray_status, "why"))
    status = status_of(decide(job, world, "x"))
    assert status["jobStatus"] == ray_status
    assert status["jobDeploymentStatus"] == phase
    assert status.get("reason") == reason
    assert status["message"] == "why"
    assert status["endTime"] == "2026-03-01T12:00:00Z"
    assert (status["failed"], status["succeeded"]) == (failed, succeeded)


def test_a_job_is_not_over_before_its_submitter_is() -> None:
    job = a_running_job("RUNNING")
    cluster = its_cluster(job, "train-abcde")
    info = RayJobInfo("FAILED", "exit code 3", end_ms=int(NOW.timestamp() * 1000))
    world = a_world(job, cluster, its_head(cluster), ray=RayFacts(jobs={"train-abcde": info}))
    followed = replace(world, followed=frozenset({"train-abcde"}))
    status = status_of(decide(job, followed, "x"))
    assert (status["jobDeploymentStatus"], status["jobStatus"]) == ("Running", "FAILED")
    assert "endTime" not in status
    assert status_of(decide(job, world, "x"))["jobDeploymentStatus"] == "Failed"
    late = replace(followed, now=NOW + SUBMITTER_WITHIN)
    assert status_of(decide(job, late, "x"))["jobDeploymentStatus"] == "Failed"


def test_a_submitter_finds_out_by_itself_that_ray_has_forgotten_its_job() -> None:
    job = a_running_job("RUNNING")
    cluster = its_cluster(job, "train-abcde")
    world = a_world(job, cluster, its_head(cluster), ray=UNKNOWN)
    assert decide(job, replace(world, followed=frozenset({"train-abcde"})), "x") == ()


def test_nothing_is_written_while_the_job_goes_on() -> None:
    job = a_running_job("RUNNING")
    cluster = its_cluster(job, "train-abcde")
    world = a_world(job, cluster, its_head(cluster), ray=ray_with("train-abcde", "RUNNING", "another message"))
    assert decide(job, world, "x") == ()


def test_nothing_is_concluded_while_ray_does_not_answer() -> None:
    job = a_running_job("RUNNING")
    cluster = its_cluster(job, "train-abcde")
    assert decide(job, without_ray(a_world(job, cluster, its_head(cluster))), "x") == ()


def test_a_job_that_ray_has_forgotten_has_failed() -> None:
    job = a_running_job("RUNNING")
    cluster = its_cluster(job, "train-abcde")
    status = status_of(decide(job, a_world(job, cluster, its_head(cluster), ray=UNKNOWN), "x"))
    assert (status["jobDeploymentStatus"], status["reason"]) == ("Failed", "AppFailed")


def test_a_job_whose_head_is_deleted_has_failed() -> None:
    job = a_running_job("RUNNING")
    cluster = its_cluster(job, "train-abcde")
    world = a_world(job, cluster, its_head(cluster, deleting=True), ray=ray_with("train-abcde", "RUNNING"))
    assert status_of(decide(job, world, "x"))["jobDeploymentStatus"] == "Failed"


def test_the_deadline_stops_and_fails_the_job() -> None:
    job = a_running_job("RUNNING", activeDeadlineSeconds=60)
    cluster = its_cluster(job, "train-abcde")
    stop, *rest = decide(job, a_world(job, cluster, its_head(cluster), ray=ray_with("train-abcde", "RUNNING")), "x")
    assert stop == Stop("train-abcde")
    assert status_of(tuple(rest))["reason"] == "DeadlineExceeded"


def test_a_failure_within_the_backoff_limit_is_retried_except_for_the_deadline() -> None:
    cluster = its_cluster(a_running_job(), "train-abcde")
    ray = ray_with("train-abcde", "FAILED")
    job = a_running_job("RUNNING", backoffLimit=1)
    again = status_of(decide(job, a_world(job, cluster, its_head(cluster), ray=ray), "x"))
    assert (again["jobDeploymentStatus"], again["reason"]) == ("Retrying", "AppFailed")
    assert "endTime" not in again, "it is not over"
    final = a_running_job("RUNNING", backoffLimit=0)
    assert (
        status_of(decide(final, a_world(final, cluster, its_head(cluster), ray=ray), "x"))["jobDeploymentStatus"]
        == "Failed"
    )
    late = a_running_job("RUNNING", backoffLimit=1, activeDeadlineSeconds=1)
    assert (
        status_of(decide(late, a_world(late, cluster, its_head(cluster), ray=ray), "x"))["jobDeploymentStatus"]
        == "Failed"
    )


def test_suspension_clears_the_status_only_when_nothing_of_the_incarnation_is_left() -> None:
    running = a_running_job("RUNNING", suspend=True)
    cluster = its_cluster(running, "train-abcde")
    head = its_head(cluster)
    world = a_world(running, cluster, head, ray=ray_with("train-abcde", "RUNNING"))
    assert status_of(decide(running, world, "x"))["jobDeploymentStatus"] == "Suspending"

    suspending = a_job({**mapping(running, "status"), "jobDeploymentStatus": "Suspending"}, suspend=True)
    assert decide(suspending, a_world(suspending, cluster, head), "x") == (
        Delete(Ref(RAY_CLUSTER, "team", "train-abcde"), "uid-train-abcde"),
    )
    assert decide(suspending, a_world(suspending, its_head(cluster, deleting=True)), "x") == ()
    cleared = status_of(decide(suspending, a_world(suspending), "x"))
    assert cleared["jobDeploymentStatus"] == "Suspended"
    assert "rayClusterName" not in cleared
    assert "jobId" not in cleared


def test_a_resumed_job_begins_again_with_new_names() -> None:
    suspended = a_job({"jobDeploymentStatus": "Suspended"}, suspend=False)
    status = status_of(decide(suspended, a_world(suspended), "x"))
    assert status["jobDeploymentStatus"] == ""
    again = a_job(dict(status))
    assert status_of(decide(again, a_world(again), "fghij"))["rayClusterName"] == "train-fghij"


def finished(ended: str, ttl: int) -> Document:
    return a_job(
        {"jobDeploymentStatus": "Complete", "jobId": "train-abcde", "rayClusterName": "train-abcde", "endTime": ended},
        shutdownAfterJobFinishes=True,
        ttlSecondsAfterFinished=ttl,
    )


def test_a_finished_job_keeps_its_cluster_for_its_time_to_live() -> None:
    early, late = finished(STARTED, 61), finished(STARTED, 60)
    cluster = its_cluster(early, "train-abcde")
    assert decide(early, a_world(early, cluster), "x") == ()
    assert decide(late, a_world(late, cluster), "x") == (
        Delete(Ref(RAY_CLUSTER, "team", "train-abcde"), "uid-train-abcde"),
    )
    assert decide(late, a_world(late), "x") == ()


def test_a_deleted_job_is_stopped_and_let_go() -> None:
    job = a_job(
        {"jobDeploymentStatus": "Running", "jobId": "train-abcde"},
        {"deletionTimestamp": STARTED, "finalizers": [FINALIZER]},
    )
    assert active_submission(job) == "train-abcde"
    assert decide(job, a_world(job, ray=ray_with("train-abcde", "RUNNING")), "x") == (
        Stop("train-abcde"),
        Hold(job, ()),
    )
    assert decide(job, a_world(job, ray=ray_with("train-abcde", "SUCCEEDED")), "x") == (Hold(job, ()),)


def test_a_job_that_another_controller_manages_is_left_alone() -> None:
    job = a_job(managedBy="kueue.x-k8s.io/multikueue")
    assert decide(job, a_world(job), "x") == ()


def test_an_agent_that_lost_its_memory_decides_the_same() -> None:
    job = a_running_job("RUNNING")
    cluster = its_cluster(job, "train-abcde")
    world = a_world(job, cluster, its_head(cluster), ray=ray_with("train-abcde", "SUCCEEDED"))
    assert decide(job, world, "first") == decide(job, world, "second")


@pytest.mark.parametrize("status", ["RUNNING", "SUCCEEDED"])
def test_a_job_is_followed_from_when_ray_has_taken_it_even_if_it_ended_since(status: str) -> None:
    job = a_running_job()
    cluster = its_cluster(job, "train-abcde")
    found = to_follow(job, a_world(job, cluster, its_head(cluster), ray=ray_with("train-abcde", status)))
    assert found is not None
    submission, variables = found
    assert (submission, variables["RAY_CLUSTER_NAME"]) == ("train-abcde", "train-abcde")


def test_nobody_follows_a_job_that_ray_does_not_know_or_whose_head_is_gone() -> None:
    job = a_running_job()
    cluster = its_cluster(job, "train-abcde")
    world = a_world(job, cluster, its_head(cluster), ray=UNKNOWN)
    assert to_follow(job, world) is None
    assert to_follow(job, without_ray(world)) is None
    assert to_follow(job, a_world(job, cluster, ray=ray_with("train-abcde", "RUNNING"))) is None
