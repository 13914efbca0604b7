"""The cases: what the operator reads of RayJobs, RayServices and their Pods, and what it may rely on.

A state that only one of the parties shows is a `may`. Each is of no account for the operator, which acts on
`Running`, on an end, on names and on Pods that are left, and never on having seen a state before.
"""

import pytest

from drivetrain.api.documents import Document, documents, integer, labels_of, text, uid_of
from drivetrain.api.kinds import RAY_CLUSTER
from tests.conformance.chronicle import Moment
from tests.conformance.order import State, Step, follows, may, must
from tests.conformance.stories import (
    HEAD,
    LONG,
    Told,
    application,
    cluster_of,
    condition,
    readiness,
    waiting,
)

BEGINS = (may("", ""), must("Initializing", ""))
RUNS = (
    must("Running", ""),  # the cluster is ready; Ray need not know the job yet
    may("Running", "PENDING"),
    may("Running", "RUNNING"),  # a job may be over before anybody asks
)
TOO_LONG = "The KIND metadata is invalid: KIND name should be no more than 47 characters"
STOPPED = {"Terminated", "Stopped"}
"""How a submitter ends that is told to stop: Ray may have stopped the job by then. A person reads it, no program."""


class Conformance:
    """Inherited once for each party, which gives the fixture `told`."""

    def test_a_job_with_an_invalid_name_fails_validation_and_makes_nothing(self, told: Told) -> None:
        moments = told.job("refused", LONG)
        assert not against(moments, may("", ""), must("ValidationFailed", ""))
        last = moments[-1].document
        assert text(last, "status", "reason") == "ValidationFailed"
        assert text(last, "status", "message") == TOO_LONG.replace("KIND", "RayJob")
        assert clusters(moments) == ()

    def test_an_endpoint_with_an_invalid_name_is_not_ready_and_makes_nothing(self, told: Told) -> None:
        moments = told.service("refused", LONG)
        stated = [readiness(each.document) for each in moments]
        assert not follows(stated, (may("", ""), must("False", "ValidationFailed")))
        message = text(condition(moments[-1].document, "Ready"), "message")
        assert message == TOO_LONG.replace("KIND", "RayService")
        assert clusters(moments) == ()

    def test_a_job_whose_secret_is_missing_stays_in_initializing(self, told: Told) -> None:
        moments = told.job("late")
        (cluster,) = clusters(moments)
        states = [waiting(each.document) for each in told.pods(cluster) if is_head(each)]
        assert ("CreateContainerConfigError", 'secret "late" not found') in states
        came = [
            each.version for each in told.pods(cluster) if waiting(each.document)[0] == "CreateContainerConfigError"
        ]
        until_then = [state(each.document) for each in moments if each.version < came[-1]]
        assert set(until_then) <= {("", ""), ("Initializing", "")}

    def test_a_job_that_succeeds_completes(self, told: Told) -> None:
        moments = told.job("late")
        assert not against(moments, *BEGINS, *RUNS, may("Running", "SUCCEEDED"), must("Complete", "SUCCEEDED"))
        last = moments[-1].document
        assert text(last, "status", "reason") == ""
        assert text(last, "status", "message") == "Job finished successfully."

    def test_a_failing_job_is_retried_in_another_cluster_and_fails_in_the_end(self, told: Told) -> None:
        moments = told.job("retried")
        tried = (*BEGINS, *RUNS, may("Running", "FAILED"))
        again = (must("Retrying", "FAILED"), must("", ""))
        assert not against(
            moments, *tried, *again, *BEGINS[1:], *RUNS, may("Running", "FAILED"), must("Failed", "FAILED")
        )
        assert len(clusters(moments)) == 2
        for found in in_phase(moments, "Retrying", "Failed"):
            assert text(found, "status", "reason") == "AppFailed"
            assert "exit code 3" in text(found, "status", "message")

    def test_a_job_made_suspended_makes_no_cluster_until_it_is_resumed(self, told: Told) -> None:
        moments = told.job("suspended")
        resumed = next(each.version for each in moments if integer(each.document, "metadata", "generation") == 2)
        made = [each.version for each in told.moments if each.ref.kind == RAY_CLUSTER and is_of(each, "suspended")]
        assert made[0] > resumed

    def test_a_running_job_is_suspended_and_resumed_and_deleted(self, told: Told) -> None:
        moments = told.job("suspended")
        assert not against(
            moments,
            *BEGINS,
            *(must("Suspending", ""), must("Suspended", "")),
            *(must("", ""), must("Initializing", ""), *RUNS[:-1], must("Running", "RUNNING")),
            *(must("Suspending", "RUNNING"), must("Suspended", "")),
            *(must("", ""), must("Initializing", ""), *RUNS[:-1], must("Running", "RUNNING")),
        )
        assert moments[-1].gone
        assert deleting(moments[-1]), "it is held until its job was stopped"

    def test_a_suspended_job_has_no_cluster_and_comes_back_with_another(self, told: Told) -> None:
        moments = told.job("suspended")
        stopped = [each for each in moments if state(each.document)[0] == "Suspended"]
        for each in stopped:
            assert cluster_of(each.document) == text(each.document, "status", "jobId") == ""
        # The first name is given before KubeRay sees that the job is suspended.
        unused, first, second = clusters(moments)
        assert not told.cluster(unused)
        assert told.cluster(first)[-1].gone
        assert told.cluster(first)[-1].version < stopped[-1].version
        assert told.cluster(second)[0].version > stopped[-1].version
        starts = {cluster_of(each.document): text(each.document, "status", "startTime") for each in moments}
        assert starts[unused] <= starts[first] < starts[second]
        assert len(submissions(moments)) == 3

    def test_a_job_that_loses_its_head_fails(self, told: Told) -> None:
        moments = told.job("lost")
        assert not against(moments, *BEGINS, *RUNS[:-1], must("Running", "RUNNING"), must("Failed", "RUNNING"))
        (found,) = in_phase(moments, "Failed")
        assert text(found, "status", "reason") == "AppFailed"
        assert text(found, "status", "message") == "Submitter completed but Ray job not found in RayCluster."

    @pytest.mark.parametrize(("name", "phase"), [("late", "Complete"), ("retried", "Failed"), ("lost", "Failed")])
    def test_a_job_tells_when_it_ended_and_not_before(self, told: Told, name: str, phase: str) -> None:
        for each in told.job(name):
            ended = text(each.document, "status", "endTime")
            assert bool(ended) == (state(each.document)[0] == phase), state(each.document)
            assert not ended or ended >= text(each.document, "status", "startTime")

    @pytest.mark.parametrize("name", ["late", "retried", "suspended", "lost"])
    def test_names_are_told_before_anything_is_made_and_stay_as_long_as_it_lives(self, told: Told, name: str) -> None:
        moments = told.job(name)
        for each in moments:
            named = (cluster_of(each.document), text(each.document, "status", "jobId"))
            assert all(named) or not any(named)
            if state(each.document)[0] not in ("", "Suspended"):
                assert all(named)
                assert text(each.document, "status", "startTime")
        for cluster in clusters(moments):
            told_at = next(each.version for each in moments if cluster_of(each.document) == cluster)
            assert all(each.version > told_at for each in told.cluster(cluster))

    @pytest.mark.parametrize("name", ["late", "retried", "lost"])
    def test_the_cluster_of_a_job_that_is_over_goes_and_the_job_stays(self, told: Told, name: str) -> None:
        moments = told.job(name)
        assert not moments[-1].gone
        cluster = clusters(moments)[-1]
        assert told.cluster(cluster)[-1].gone
        assert cluster_of(moments[-1].document) == cluster

    @pytest.mark.parametrize("name", ["late", "retried", "suspended", "lost"])
    def test_every_pod_of_a_job_carries_the_labels_of_its_attempt_and_cluster(self, told: Told, name: str) -> None:
        moments = told.job(name)
        wanted = labels_of(moments[0].document)
        made = [cluster for cluster in clusters(moments) if told.cluster(cluster)]
        assert made
        for cluster in made:
            found = told.cluster(cluster)[0].document
            assert wanted.items() <= labels_of(found).items()
            assert owner_of(found) == uid_of(moments[0].document)
            (head,) = {each.ref for each in told.pods(cluster) if is_head(each)} if name != "lost" else (None,)
            for each in told.pods(cluster):
                assert wanted.items() <= labels_of(each.document).items()
                assert labels_of(each.document)["ray.io/group"] == "headgroup"
                assert owner_of(each.document) == uid_of(found)
            assert head is None or told.of(head)[-1].gone

    @pytest.mark.parametrize("name", ["late", "retried", "suspended", "lost"])
    def test_a_head_pod_starts_on_a_node_and_its_job_runs_once_it_is_ready(self, told: Told, name: str) -> None:
        moments = told.job(name)
        for cluster in (each for each in clusters(moments) if told.cluster(each)):
            (first, *_) = (each.ref for each in told.pods(cluster) if is_head(each))
            alive = [each.document for each in told.of(first) if not deleting(each)]
            assert not follows(
                [(text(each, "status", "phase"), ready(each)) for each in alive],
                (
                    *(may("", ""), may("Pending", ""), may("Pending", "False")),
                    *(may("Running", "False"), must("Running", "True")),
                ),
            )
            up = next(each for each in told.of(first) if ready(each.document) == "True")
            assert text(up.document, "spec", "nodeName")
            assert begun(moments, cluster).version > up.version
            types = {text(each, "type") for each in documents(up.document, "status", "conditions")}
            assert types >= {"PodReadyToStartContainers", "PodScheduled", "Initialized", "ContainersReady", "Ready"}

    @pytest.mark.parametrize(
        ("name", "endings"),
        [
            ("late", [{"Succeeded"}]),
            ("retried", [{"Failed"}, {"Failed"}]),
            ("suspended", [STOPPED, STOPPED]),
            ("lost", [{"Lost", *STOPPED}]),
        ],
    )
    def test_every_incarnation_leaves_a_dossier_of_how_it_ended(
        self, told: Told, name: str, endings: list[set[str]]
    ) -> None:
        found = [told.dossiers[each].ended for each in submissions(told.job(name)) if each in told.dossiers]
        assert len(found) == len(endings)
        assert all(ending in expected for ending, expected in zip(found, endings, strict=True)), found

    def test_an_endpoint_is_ready_once_its_application_runs_and_until_its_head_is_lost(self, told: Told) -> None:
        moments = told.service("served")
        assert not follows(
            [readiness(each.document) for each in moments],
            (
                may("", ""),
                must("False", "Initializing"),
                must("True", "NonZeroServeEndpoints"),
                must("False", "ZeroServeEndpoints"),
                must("True", "NonZeroServeEndpoints"),
            ),
        )
        for each in moments:
            serves = readiness(each.document)[0] == "True"
            assert text(each.document, "status", "serviceStatus") == ("Running" if serves else "")
            assert bool(integer(each.document, "status", "numServeEndpoints")) == serves

    def test_an_application_fails_and_is_corrected_and_changed_in_place(self, told: Told) -> None:
        moments = told.service("served")
        pending, active = "pendingServiceStatus", "activeServiceStatus"
        deploying = may(active, "DEPLOYING")
        assert not follows(
            [application(each.document) for each in moments],
            (
                may("", ""),
                may(pending, "DEPLOYING"),
                must(pending, "DEPLOY_FAILED"),
                may(pending, "DEPLOYING"),
                may(pending, "RUNNING"),
                must(active, "RUNNING"),
                *(deploying, may(active, "RUNNING")),
                *(deploying, must(active, "DEPLOY_FAILED")),
                *(deploying, must(active, "RUNNING")),
                may(active, "DELETING"),
                must("", ""),
                *(deploying, must(active, "RUNNING")),
                *(may(active, "DELETING"), may("", "")),
            ),
        )

    def test_a_failed_application_says_why(self, told: Told) -> None:
        moments = told.service("served")
        failed = [each.document for each in moments if application(each.document)[1] == "DEPLOY_FAILED"]
        for each in failed:
            part, _ = application(each)
            assert "No module named 'absent'" in text(each, "status", part, "applicationStatuses", "word", "message")

    def test_an_endpoint_keeps_its_cluster(self, told: Told) -> None:
        moments = told.service("served")
        (cluster,) = clusters(moments)
        upgrade = [condition(each.document, "UpgradeInProgress") for each in moments]
        assert not follows(
            [(text(each, "status"), text(each, "reason")) for each in upgrade],
            (may("", ""), must("False", "Initializing"), must("False", "NoPendingCluster")),
        )
        assert text(moments[-1].document, "status", "activeServiceStatus", "rayClusterName") == cluster

    def test_the_head_of_an_endpoint_carries_the_label_that_our_service_selects_while_it_is_ready(
        self, told: Told
    ) -> None:
        moments = told.service("served")
        (cluster,) = clusters(moments)
        pods = told.pods(cluster)
        first = [each for each in pods if each.ref == pods[0].ref and not each.gone]
        assert labels_of(first[0].document)["ray.io/serve"] == "false"
        serves = next(each for each in moments if readiness(each.document)[0] == "True")
        last_label = [labels_of(each.document)["ray.io/serve"] for each in first if each.version < serves.version][-1]
        assert last_label == "true"
        assert all(labels_of(each.document)["conformance/service"] == "served" for each in pods)

    def test_a_deleted_endpoint_goes_after_its_cluster(self, told: Told) -> None:
        moments = told.service("served")
        (cluster,) = clusters(moments)
        assert moments[-1].gone
        assert deleting(moments[-1])
        assert told.cluster(cluster)[-1].gone
        assert told.cluster(cluster)[-1].version < moments[-1].version


def state(job: Document) -> State:
    """Where a RayJob stands, and what it says of Ray's job."""
    return text(job, "status", "jobDeploymentStatus"), text(job, "status", "jobStatus")


def against(moments: tuple[Moment, ...], *way: Step) -> str:
    """Why a RayJob did not go this way, empty where it did."""
    return follows([state(each.document) for each in moments], way)


def in_phase(moments: tuple[Moment, ...], *phases: str) -> tuple[Document, ...]:
    """The first versions of a RayJob in each of these phases."""
    found: dict[State, Document] = {}
    for each in moments:
        if state(each.document)[0] in phases:
            found.setdefault(state(each.document), each.document)
    return tuple(found.values())


def clusters(moments: tuple[Moment, ...]) -> tuple[str, ...]:
    """The RayClusters that a status has named, in order."""
    return tuple(dict.fromkeys(name for each in moments if (name := cluster_of(each.document))))


def submissions(moments: tuple[Moment, ...]) -> tuple[str, ...]:
    """The ids of Ray's jobs that a status has named, in order."""
    return tuple(dict.fromkeys(name for each in moments if (name := text(each.document, "status", "jobId"))))


def begun(moments: tuple[Moment, ...], cluster: str) -> Moment:
    """When a RayJob began to run in a cluster."""
    here = (each for each in moments if cluster_of(each.document) == cluster)
    return next(each for each in here if state(each.document)[0] == "Running")


def ready(pod: Document) -> str:
    """The status of a Pod's Ready condition."""
    return text(condition(pod, "Ready"), "status")


def is_head(moment: Moment) -> bool:
    """Whether this is a head Pod."""
    return HEAD.items() <= labels_of(moment.document).items()


def is_of(moment: Moment, owner: str) -> bool:
    """Whether an object was made for the RayJob or RayService of this name."""
    return any(text(each, "name") == owner for each in documents(moment.document, "metadata", "ownerReferences"))


def owner_of(found: Document) -> str:
    """The uid of whoever controls an object."""
    (owner,) = (each for each in documents(found, "metadata", "ownerReferences") if each.get("controller") is True)
    return text(owner, "uid")


def deleting(moment: Moment) -> bool:
    """Whether deletion has been asked for."""
    return bool(text(moment.document, "metadata", "deletionTimestamp"))
