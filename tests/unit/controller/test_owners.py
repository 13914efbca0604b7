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
