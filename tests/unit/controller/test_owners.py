"""Who is woken by whose change."""

import pytest

from drivetrain.api.documents import JSON, Document
from drivetrain.api.kinds import (
    CONFIG_MAP,
    DEPLOYMENT,
    DRIVETRAIN_PROJECT,
    POD,
    RAY_CLUSTER,
    RAY_JOB,
    TRAINING_RUN,
    WORKLOAD,
    Ref,
)
from drivetrain.controller.handlers.owners import Owners

PROJECT = Ref(DRIVETRAIN_PROJECT, "team", "churn")
RUN = Ref(TRAINING_RUN, "team", "churn-1")
SERVED = Ref(DEPLOYMENT, "team", "churn")
SECOND = Ref(DEPLOYMENT, "team", "churn-too")


def own(ref: Ref, uid: str, project: str | None = None) -> Document:
    spec: Document = {} if project is None else {"project": project}
    return {"metadata": {"name": ref.name, "namespace": ref.namespace, "uid": uid}, "spec": spec}


def child(
    name: str, uid: str, *, of: Ref | None = None, owner_uid: str = "", labels: dict[str, str] | None = None
) -> Document:
    labels = dict(labels or {})
    if of is not None:
        labels |= {"drivetrain.dev/owner-kind": of.kind.kind, "drivetrain.dev/owner-name": of.name}
    owners: JSON = [{"uid": owner_uid}] if owner_uid else []
    return {"metadata": {"name": name, "namespace": "team", "uid": uid, "labels": labels, "ownerReferences": owners}}


@pytest.fixture
def owners() -> Owners:
    return Owners()


def test_a_labelled_child_wakes_its_owner(owners: Owners) -> None:
    assert owners.to_wake(RAY_JOB, child("a1", "u1", of=RUN)) == {RUN}


def test_what_kuberay_and_kueue_make_of_a_child_wakes_the_owner_of_the_child(owners: Owners) -> None:
    owners.to_wake(RAY_JOB, child("a1", "job", of=RUN))
    assert owners.to_wake(WORKLOAD, child("w", "workload", owner_uid="job")) == {RUN}
    assert owners.to_wake(RAY_CLUSTER, child("c", "cluster", owner_uid="job")) == {RUN}
    assert owners.to_wake(POD, child("p", "pod", owner_uid="cluster")) == {RUN}


def test_a_pod_of_a_run_wakes_it_by_the_uid_it_carries(owners: Owners) -> None:
    owners.to_wake(TRAINING_RUN, own(RUN, "run"))
    assert owners.to_wake(POD, child("p", "pod", labels={"drivetrain.dev/run-uid": "run"})) == {RUN}


def test_strangers_wake_nobody(owners: Owners) -> None:
    assert owners.to_wake(POD, child("p", "pod", owner_uid="unknown")) == frozenset()
    assert owners.to_wake(CONFIG_MAP, child("c", "map")) == frozenset()


def test_a_run_wakes_its_project(owners: Owners) -> None:
    assert owners.to_wake(TRAINING_RUN, own(RUN, "run", "churn")) == {RUN, PROJECT}


def test_a_projects_ledger_wakes_the_deployment_that_names_it(owners: Owners) -> None:
    owners.to_wake(DEPLOYMENT, own(SERVED, "d", "churn"))
    ledger = child("drivetrainproject-churn-ledger", "l", of=PROJECT, labels={"drivetrain.dev/project": "churn"})
    assert owners.to_wake(CONFIG_MAP, ledger) == {PROJECT, SERVED}


def test_a_deployments_ledger_wakes_its_project(owners: Owners) -> None:
    ledger = child("deployment-churn-ledger", "l", of=SERVED, labels={"drivetrain.dev/project": "churn"})
    assert owners.to_wake(CONFIG_MAP, ledger) == {SERVED, PROJECT}


STATUS: Document = {"stage": "Training"}


def test_an_object_is_not_woken_by_what_its_own_reconcile_left_behind(owners: Owners) -> None:
    read = own(PROJECT, "p")
    owners.reconciled(PROJECT, {**read, "status": STATUS})
    assert owners.to_wake(DRIVETRAIN_PROJECT, {**read, "status": STATUS}) == frozenset()
    assert owners.to_wake(DRIVETRAIN_PROJECT, {**read, "status": {}}) == {PROJECT}, "somebody wiped it"
    assert owners.to_wake(DRIVETRAIN_PROJECT, {**read, "spec": {"a": 1}, "status": STATUS}) == {PROJECT}


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"generation": 2}, id="generation"),
        pytest.param({"annotations": {"drivetrain.dev/promote": "abc"}}, id="annotations"),
        pytest.param({"labels": {"team": "a"}}, id="labels"),
        pytest.param({"deletionTimestamp": "2026-01-01T00:00:00Z"}, id="deletion"),
        pytest.param({"ownerReferences": [{"uid": "x"}]}, id="owner references"),
        pytest.param({"uid": "another"}, id="another object of the name"),
    ],
)
def test_a_change_that_a_person_made_wakes_the_object_and_all_who_read_it(
    owners: Owners, change: dict[str, JSON]
) -> None:
    owners.to_wake(DEPLOYMENT, own(SERVED, "d", "churn"))
    owners.reconciled(SERVED, own(SERVED, "d", "churn"))
    owners.reconciled(PROJECT, own(PROJECT, "p"))
    before = own(SERVED, "d", "churn")
    metadata = before["metadata"]
    assert isinstance(metadata, dict)
    assert owners.to_wake(DEPLOYMENT, before) == frozenset()
    assert owners.to_wake(DEPLOYMENT, {**before, "metadata": metadata | change}) == {SERVED, PROJECT}


def test_versions_and_the_managers_of_fields_tell_nothing(owners: Owners) -> None:
    written = own(SERVED, "d", "churn")
    metadata = written["metadata"]
    assert isinstance(metadata, dict)
    owners.to_wake(DEPLOYMENT, written)
    owners.reconciled(SERVED, written)
    later = metadata | {"resourceVersion": "7", "managedFields": [{"manager": "kubectl"}]}
    assert owners.to_wake(DEPLOYMENT, {**written, "metadata": later}) == frozenset()


def test_a_status_wakes_no_other_object(owners: Owners) -> None:
    for kind, ref, document in (
        (DEPLOYMENT, SERVED, own(SERVED, "d", "churn")),
        (DRIVETRAIN_PROJECT, PROJECT, own(PROJECT, "p")),
        (TRAINING_RUN, RUN, own(RUN, "r", "churn")),
    ):
        owners.to_wake(kind, document)
        assert owners.to_wake(kind, {**document, "status": STATUS}) == {ref}


def test_why_a_run_is_not_ready_wakes_the_project_that_shows_it(owners: Owners) -> None:
    def told(message: str, stage: str) -> Document:
        ready: JSON = {"type": "Ready", "status": "False", "reason": "QuotaReserved", "message": message}
        return {**own(RUN, "r", "churn"), "status": {"stage": stage, "conditions": [ready]}}

    owners.to_wake(TRAINING_RUN, told("waits", "Training"))
    assert owners.to_wake(TRAINING_RUN, told("waits", "Tuning")) == {RUN}
    assert owners.to_wake(TRAINING_RUN, told("waits for 2 GPUs", "Tuning")) == {RUN, PROJECT}


def test_what_a_listing_shows_is_still_new_when_a_watch_tells_it(owners: Owners) -> None:
    owners.listed(SERVED, own(SERVED, "d", "churn"))
    assert owners.to_wake(DEPLOYMENT, own(SERVED, "d", "churn")) == {SERVED, PROJECT}
    owners.listed(RUN, own(RUN, "run", "churn"))
    assert owners.to_wake(POD, child("p", "pod", labels={"drivetrain.dev/run-uid": "run"})) == {RUN}


def test_a_runs_report_wakes_the_run_alone_and_its_ledger_all_who_read_it(owners: Owners) -> None:
    owners.to_wake(DEPLOYMENT, own(SERVED, "d", "churn"))
    report = child("trainingrun-churn-1-report", "r", of=RUN, labels={"drivetrain.dev/project": "churn"})
    assert owners.to_wake(CONFIG_MAP, report) == {RUN}
    ledger = child("trainingrun-churn-1-ledger", "l", of=RUN, labels={"drivetrain.dev/project": "churn"})
    assert owners.to_wake(CONFIG_MAP, ledger) == {RUN, PROJECT, SERVED}


def test_a_deployments_report_wakes_its_project(owners: Owners) -> None:
    report = child("deployment-churn-report", "r", of=SERVED, labels={"drivetrain.dev/project": "churn"})
    assert owners.to_wake(CONFIG_MAP, report) == {SERVED, PROJECT}


def test_when_a_deployment_goes_the_next_of_the_same_project_is_woken(owners: Owners) -> None:
    owners.to_wake(DEPLOYMENT, own(SERVED, "d1", "churn"))
    owners.to_wake(DEPLOYMENT, own(SECOND, "d2", "churn"))
    assert owners.to_wake(DEPLOYMENT, own(SERVED, "d1", "churn"), deleted=True) == {SERVED, SECOND, PROJECT}
    assert owners.to_wake(DRIVETRAIN_PROJECT, own(PROJECT, "p")) == {PROJECT, SECOND}


def test_a_deleted_child_is_told_once_and_forgotten(owners: Owners) -> None:
    owners.to_wake(RAY_JOB, child("a1", "job", of=RUN))
    assert owners.to_wake(RAY_JOB, child("a1", "job", of=RUN), deleted=True) == {RUN}
    assert owners.to_wake(POD, child("p", "pod", owner_uid="job")) == frozenset()
