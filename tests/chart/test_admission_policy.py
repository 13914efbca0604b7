"""The admission policy of the cluster-wide mode, tried as the operator's account with all rights that there are."""

from collections.abc import Iterator, Mapping
from itertools import product

import pytest

from drivetrain.api.documents import JSON, Document, mapping
from drivetrain.api.names import MANAGED_BY, MANAGED_BY_LABEL
from tests.chart.conftest import ENABLED, OTHER
from tests.support.helm import NAMESPACE, of_kind, render
from tests.support.rest import APPLY, Rest, until

pytestmark = pytest.mark.binaries

ACCOUNT = f"system:serviceaccount:{NAMESPACE}:drivetrain"
OURS = {MANAGED_BY_LABEL: MANAGED_BY}
THEIRS = {MANAGED_BY_LABEL: "Helm"}
BODIES: Mapping[str, tuple[str, Mapping[str, JSON]]] = {
    "RayJob": ("ray.io/v1", {"spec": {"entrypoint": "true", "suspend": True}}),
    "RayService": ("ray.io/v1", {"spec": {"rayClusterConfig": {"headGroupSpec": {"template": {}}}}}),
    "RayCluster": ("ray.io/v1", {"spec": {"headGroupSpec": {"template": {}}}}),
    "ConfigMap": ("v1", {"data": {"key": "value"}}),
    "ServiceAccount": ("v1", {}),
    "Service": ("v1", {"spec": {"ports": [{"port": 80}]}}),
    "Role": ("rbac.authorization.k8s.io/v1", {"rules": []}),
    "RoleBinding": (
        "rbac.authorization.k8s.io/v1",
        {"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "x"}, "subjects": []},
    ),
    "NetworkPolicy": ("networking.k8s.io/v1", {"spec": {"podSelector": {}}}),
}
"""The kinds of children, each as small as it can be."""


def an_object(kind: str, name: str, namespace: str, labels: Mapping[str, str]) -> Document:
    version, body = BODIES[kind]
    metadata: Document = {"name": name, "namespace": namespace, "labels": dict(labels)}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **body}


@pytest.fixture(scope="module")
def operator(rest: Rest) -> Iterator[Rest]:
    """The operator's account under the rendered policy, its own roles replaced by an administrator's."""
    rendered = render()
    applied = [*of_kind(rendered, "ValidatingAdmissionPolicy"), *of_kind(rendered, "ValidatingAdmissionPolicyBinding")]
    for document in applied:
        assert rest.apply(document).status in (200, 201)
    api = "rbac.authorization.k8s.io"
    binding: Document = {
        "apiVersion": f"{api}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "as-if-the-operator-might-do-anything"},
        "roleRef": {"apiGroup": api, "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"apiGroup": api, "kind": "User", "name": ACCOUNT}],
    }
    assert rest.apply(binding).status in (200, 201)
    operator = rest.as_user(ACCOUNT)
    probe = an_object("ConfigMap", "probe", OTHER, OURS)
    until(lambda: operator.create(probe, dry=True).status == 403, "the policy holds")
    stored = rest("GET", rest.path_of(applied[0])).body
    assert not mapping(stored, "status", "typeChecking").get("expressionWarnings"), stored["status"]
    yield operator
    for document in reversed(applied):
        rest.delete(document)
    until(lambda: operator.create(probe, dry=True).status == 201, "the policy is gone")
    rest.delete(binding)


@pytest.mark.parametrize("kind", BODIES)
def test_the_operator_keeps_its_children_in_enabled_namespaces(rest: Rest, operator: Rest, kind: str) -> None:
    child = an_object(kind, "kept", ENABLED, OURS)
    assert operator.apply(child).status == 201
    changed = {**child, "metadata": {**mapping(child, "metadata"), "annotations": {"changed": "yes"}}}
    assert operator.apply(changed).status == 200
    assert operator.delete(child).status == 200


@pytest.mark.parametrize("kind", BODIES)
def test_the_operator_writes_nothing_where_nobody_asked_for_it(rest: Rest, operator: Rest, kind: str) -> None:
    child = an_object(kind, "there", OTHER, OURS)
    refused = operator.create(child)
    assert (refused.status, refused.body["reason"]) == (403, "Forbidden")
    assert "namespace team-b is not enabled: label it drivetrain.dev/enabled=true" in refused.message
    assert rest.create(child).status == 201
    changed = {"metadata": {"annotations": {"changed": "yes"}}}
    for answer in (
        operator("PATCH", f"{rest.path_of(child)}?fieldManager=x&force=true", {**child, **changed}, APPLY),
        operator("PATCH", rest.path_of(child), changed, "merge-patch+json"),
        operator.delete(child),
    ):
        assert (answer.status, answer.body["reason"]) == (403, "Forbidden")
    assert rest.delete(child).status == 200


@pytest.mark.parametrize(("kind", "labels"), [*product(BODIES, ({}, THEIRS))])
def test_what_is_not_the_operators_stays_untouched(
    rest: Rest, operator: Rest, kind: str, labels: Mapping[str, str]
) -> None:
    foreign = an_object(kind, "foreign", ENABLED, labels)
    refused = operator.create(foreign)
    assert (refused.status, refused.body["reason"]) == (403, "Forbidden")
    assert "writes only objects labelled" in refused.message
    assert "drivetrain.dev/enabled" not in refused.message, "else the status would blame the namespace"
    assert rest.create(foreign).status == 201
    seized = {"metadata": {"labels": OURS}}
    for answer in (operator("PATCH", rest.path_of(foreign), seized, "merge-patch+json"), operator.delete(foreign)):
        assert (answer.status, answer.body["reason"]) == (403, "Forbidden")
        assert "changes only objects labelled" in answer.message
    assert rest.delete(foreign).status == 200


def test_a_child_cannot_be_given_away(rest: Rest, operator: Rest) -> None:
    child = an_object("ConfigMap", "given", ENABLED, OURS)
    assert operator.create(child).status == 201
    answer = operator("PATCH", rest.path_of(child), {"metadata": {"labels": THEIRS}}, "merge-patch+json")
    assert answer.status == 403
    assert rest.delete(child).status == 200


def test_a_namespace_is_enabled_by_the_word_true_alone(rest: Rest, operator: Rest) -> None:
    for value in ("false", "True", "yes"):
        namespace: Document = {"name": "hesitant", "labels": {"drivetrain.dev/enabled": value}}
        assert rest.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": namespace}).status in (200, 201)
        assert operator.create(an_object("ConfigMap", "x", "hesitant", OURS), dry=True).status == 403


def test_nobody_else_is_confined_and_neither_are_the_lease_and_events(rest: Rest, operator: Rest) -> None:
    assert rest.create(an_object("ConfigMap", "x", OTHER, {}), dry=True).status == 201
    lease: Document = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "drivetrain-operator", "namespace": NAMESPACE},
        "spec": {"holderIdentity": "x"},
    }
    assert operator.create(lease, dry=True).status == 201
    event: Document = {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": "x.1", "namespace": OTHER},
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "reportingController": "drivetrain.dev/operator",
        "reportingInstance": "x",
        "action": "Reconcile",
        "reason": "Seen",
        "type": "Normal",
        "regarding": {"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "namespace": OTHER},
    }
    assert operator.create(event, dry=True).status == 201
