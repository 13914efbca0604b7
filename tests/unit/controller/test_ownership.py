"""What somebody else has under the name of a child is left as it is, and the owner says whose it is."""

from collections.abc import Mapping
from datetime import timedelta

import pytest

from drivetrain.api.documents import JSON, Document, documents, mapping, text, uid_of, value
from drivetrain.api.kinds import (
    CONFIG_MAP,
    DEPLOYMENT,
    DRIVETRAIN_PROJECT,
    EVENT,
    NETWORK_POLICY,
    ROLE,
    SERVICE,
    SERVICE_ACCOUNT,
    TRAINING_RUN,
    Kind,
    ref_of,
)
from tests.support.bench import NAMESPACE, Bench
from tests.support.builders import a_deployment, a_run

CONTROLLED: JSON = [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "shop", "uid": "1-2-3", "controller": True}]


def an_object(kind: Kind, name: str, **metadata: JSON) -> Document:
    """An object without content."""
    named: dict[str, JSON] = {"name": name, "namespace": NAMESPACE, **metadata}
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": named}


def a_bench() -> Bench:
    """The project, the run and the Deployment `shop`, which nobody has reconciled."""
    bench = Bench()
    bench.cluster.put(a_run().document())
    bench.cluster.put(a_deployment().document())
    return bench


def owners_of(document: Document) -> JSON:
    return value(document, "metadata", "ownerReferences")


@pytest.mark.parametrize("metadata", [{}, {"ownerReferences": CONTROLLED}], ids=["nobody's", "an apps/v1 Deployment's"])
@pytest.mark.parametrize(
    ("kind", "name", "owner"),
    [
        (SERVICE, "shop", DEPLOYMENT),
        (CONFIG_MAP, "shop-policies", DEPLOYMENT),
        (CONFIG_MAP, "deployment-shop-ledger", DEPLOYMENT),
        (SERVICE_ACCOUNT, "deployment-shop", DEPLOYMENT),
        (ROLE, "deployment-shop", DEPLOYMENT),
        (NETWORK_POLICY, "trainingrun-shop-1", TRAINING_RUN),
        (CONFIG_MAP, "shop-1-spec", TRAINING_RUN),
        (CONFIG_MAP, "drivetrainproject-shop-ledger", DRIVETRAIN_PROJECT),
    ],
)
def test_what_has_the_name_of_a_child_and_is_not_ours_is_left_alone_and_named_until_it_goes(
    kind: Kind, name: str, owner: Kind, metadata: Mapping[str, JSON]
) -> None:
    bench, owned = a_bench(), "shop-1" if owner == TRAINING_RUN else "shop"
    foreign = bench.cluster.put({**an_object(kind, name, **metadata), "spec": {"selector": {"app": "shop-web"}}})
    bench.cluster.writes.clear()
    assert bench.reconcile(owner, owned) == timedelta(minutes=1)
    assert bench.read(kind, name) == foreign
    assert {write.ref.kind for write in bench.cluster.writes} == {owner, EVENT}
    stalled = bench.condition(owner, owned, "Stalled")
    assert stalled is not None
    assert stalled[:2] == ("True", "NameTaken")
    assert f"{kind.kind} {name} exists already" in stalled[2]
    assert (bench.condition(owner, owned, "Ready") or ("",))[0] == "False"
    bench.cluster.remove(ref_of(foreign))
    bench.reconcile(owner, owned)
    assert bench.condition(owner, owned, "Stalled") is None


def test_a_child_that_outlived_its_deleted_owner_is_adopted_by_the_namesake() -> None:
    bench = a_bench()
    bench.reconcile(DEPLOYMENT, "shop")
    bench.cluster.remove(ref_of(bench.read(DEPLOYMENT, "shop")))
    orphan = bench.read(SERVICE, "shop")
    bench.cluster.collect_garbage()
    bench.cluster.put({**orphan, "metadata": {**mapping(orphan, "metadata"), "ownerReferences": []}})
    bench.cluster.put(a_deployment().document())
    bench.reconcile(DEPLOYMENT, "shop")
    assert bench.condition(DEPLOYMENT, "shop", "Stalled") is None
    (owner,) = documents(bench.read(SERVICE, "shop"), "metadata", "ownerReferences")
    assert text(owner, "uid") == uid_of(bench.read(DEPLOYMENT, "shop"))


def test_what_the_garbage_collector_has_yet_to_take_is_waited_for_and_not_told() -> None:
    bench = a_bench()
    bench.reconcile(DEPLOYMENT, "shop")
    service = bench.read(SERVICE, "shop")
    bench.cluster.remove(ref_of(bench.read(DEPLOYMENT, "shop")))
    bench.cluster.collect_garbage()
    bench.cluster.put(service)
    bench.cluster.put(a_deployment().document())
    assert bench.reconcile(DEPLOYMENT, "shop") == timedelta(seconds=1)
    assert bench.condition(DEPLOYMENT, "shop", "Stalled") is None
    bench.cluster.collect_garbage()
    bench.reconcile(DEPLOYMENT, "shop")
    assert owners_of(bench.read(SERVICE, "shop")) != owners_of(service)


def test_an_endpoint_whose_service_was_replaced_says_so_and_keeps_the_rest_of_its_status() -> None:
    bench = a_bench()
    bench.reconcile(DEPLOYMENT, "shop")
    bench.cluster.remove(ref_of(bench.read(SERVICE, "shop")))
    bench.cluster.put(an_object(SERVICE, "shop"))
    bench.cluster.writes.clear()
    bench.reconcile(DEPLOYMENT, "shop")
    assert {write.ref.kind for write in bench.cluster.writes} == {DEPLOYMENT, EVENT}
    assert mapping(bench.read(DEPLOYMENT, "shop"), "status", "stable")
    assert owners_of(bench.read(SERVICE, "shop")) is None
