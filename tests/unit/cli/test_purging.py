"""`drivetrain purge`: only what a deleted project wrote, and nothing of anybody else."""

from pathlib import Path

import pytest

from drivetrain.api import layout
from drivetrain.api.errors import DrivetrainError
from drivetrain.api.kinds import DRIVETRAIN_PROJECT, OWN_KINDS, Kind
from drivetrain.api.names import PROJECT_LABEL
from drivetrain.api.v1alpha1.project import DrivetrainProject
from drivetrain.cli.purging import check_deleted, overlap, purge, remains
from drivetrain.store import DirectoryStore
from tests.support.bench import NAMESPACE, Bench
from tests.support.builders import Manifest, a_deployment, a_project, a_run
from tests.support.fake_cluster import FakeCluster
from tests.unit.cli.person import Person

PINNED = {"name": "shop", "version": "1"}


def stored_at(uri: str, name: str = "shop", **store: str) -> DrivetrainProject:
    project = a_project(name).with_field("spec.data.store.uri", uri)
    for field, value in store.items():
        project = project.with_field(f"spec.data.store.{field}", value)
    return project.build()


def a_pod(project: str) -> Manifest:
    metadata = {"name": f"{project}-1-a1-head", "namespace": NAMESPACE, "labels": {PROJECT_LABEL: project}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata}


def test_everything_that_a_project_writes_goes_and_the_rest_stays(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    written = (
        layout.version("a" * 32),
        layout.stage("collection", "b"),
        layout.attempt("u", 1),
        layout.model("c" * 64),
        layout.monitor("shop"),
        layout.DECISIONS,
        layout.OUTCOMES,
        f"{layout.DVC_CACHE}/files/md5",
    )
    for folder in written:
        store.put(f"{folder}/x", b"12")
    store.put(layout.SIGNING_KEY, b"k")
    store.put("visits/2026.parquet", b"theirs")
    found = remains(store)
    assert (len(found.keys), found.others) == (len(written) + 1, 1)
    assert "decisions and outcomes" in "\n".join(found.lines())
    assert list(purge(store, found))[-1] == len(found.keys)
    assert [info.key for info in store.list("")] == ["visits/2026.parquet"]


def test_a_project_that_exists_is_not_purged() -> None:
    with pytest.raises(DrivetrainError, match="still exists"):
        check_deleted(Person(Bench()), a_project().build())


def test_a_store_that_another_project_uses_is_not_purged() -> None:
    bench = Bench(project=a_project("other").with_field("spec.data.store.uri", "s3://shop/data/sub").document())
    with pytest.raises(DrivetrainError, match=r"default/other keeps its data in s3://shop/data/sub\b"):
        check_deleted(Person(bench), a_project().build())


@pytest.mark.parametrize(
    ("left", "told"),
    [
        (a_run().document(), "trainingruns/shop-1"),
        (a_deployment().document(), "drivetraindeployments/shop"),
        (a_deployment("canary").without_field("spec.project").with_field("spec.model", PINNED).document(), "canary"),
        (a_pod("shop"), "shop-1-a1-head"),
    ],
)
def test_a_project_is_not_purged_while_something_of_it_lives_on(left: Manifest, told: str) -> None:
    cluster = FakeCluster()
    cluster.put(left)
    with pytest.raises(DrivetrainError, match=told):
        check_deleted(Person(cluster), a_project().build())


def test_what_other_projects_and_namespaces_run_keeps_nobody_from_purging() -> None:
    cluster = FakeCluster()
    others = (a_run(project="other"), a_deployment("other", project="other"), a_run(namespace="elsewhere"))
    for each in (*(other.document() for other in others), a_pod("other")):
        cluster.put(each)
    assert check_deleted(Person(cluster), a_project().build()) == ()


def test_a_cluster_that_does_not_know_our_kinds_cannot_say_what_is_deleted() -> None:
    class Elsewhere(Person):
        def serves(self, kind: Kind) -> bool:
            return kind not in OWN_KINDS and super().serves(kind)

    with pytest.raises(DrivetrainError, match=r"does not know drivetrainprojects.*--context"):
        check_deleted(Elsewhere(FakeCluster()), a_project().build())


def test_a_deleted_project_may_be_purged() -> None:
    assert check_deleted(Person(FakeCluster()), a_project().build()) == ()


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        (stored_at("s3://bucket/a"), stored_at("s3://bucket/a/"), True),
        (stored_at("s3://bucket/a"), stored_at("s3://bucket/ab"), False),
        (stored_at("s3://bucket/a"), stored_at("s3://bucket"), True),
        (stored_at("s3://bucket/a"), stored_at("s3://bucket/a", endpoint="https://other"), True),
        (stored_at("s3://bucket//a"), stored_at("s3://bucket/a/b"), True),
        (stored_at("s3://bucket/a"), stored_at("s3://bucker/a"), False),
    ],
)
def test_stores_lie_in_one_another_by_whole_folders_whatever_their_endpoints(
    one: DrivetrainProject, other: DrivetrainProject, together: bool
) -> None:
    assert overlap(one, other) is together


def test_who_may_not_list_projects_is_told_that_it_was_not_checked() -> None:
    class Narrow(Person):
        def list(self, kind, labels=None, *, namespace=None):  # type: ignore[no-untyped-def]  # as Person's
            if kind == DRIVETRAIN_PROJECT and namespace == "":
                self._denied = frozenset({kind})
                try:
                    return super().list(kind, labels, namespace=namespace)
                finally:
                    self._denied = frozenset()
            return super().list(kind, labels, namespace=namespace)

    (unread,) = check_deleted(Narrow(FakeCluster()), a_project().build())
    assert "you may not list drivetrainprojects" in unread
