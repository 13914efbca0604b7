"""What the audit log of an API server says about rights, by a few lines of it."""

import ast
import json
from pathlib import Path
from typing import Any

import pytest

from drivetrain.api import rights
from drivetrain.api.documents import Document
from tests.cluster import audit
from tests.cluster.audit import OPERATOR, RARE, Grant, Right, Use, findings, grants, uses
from tests.cluster.kubectl import Kubectl

ROOT = Path(__file__).parents[3]
PODS = Right("", "pods", "list")
RUN, ENDPOINT = "team-a/trainingrun-shop-1", "team-a/deployment-shop"
MADE = (Right("", "serviceaccounts", "create"), Right("", "serviceaccounts", "patch"))


def a_line(account: str, verb: str, resource: str, *, code: int = 200, **where: Any) -> str:
    """An entry as the API server writes them, level Metadata."""
    reference = {"resource": resource, "namespace": "team-a", "apiVersion": "v1", **where}
    entry = {
        "kind": "Event",
        "level": "Metadata",
        "stage": "ResponseComplete",
        "verb": verb,
        "user": {"username": account},
        "objectRef": {key: value for key, value in reference.items() if value},
        "responseStatus": {"metadata": {}, "code": code, **({"message": "no"} if code == 403 else {})},
    }
    return json.dumps(entry)


BY_OPERATOR = "system:serviceaccount:drivetrain-system:drivetrain"


def the(*lines: str) -> frozenset[Use]:
    return uses(lines)


def a_role(kind: str, name: str, *rules: Document, namespace: str = "") -> Document:
    return {"kind": kind, "metadata": {"name": name, **({"namespace": namespace} if namespace else {})}, "rules": rules}


def a_binding(kind: str, role: str, account: str, *, of: str = "", namespace: str = "") -> Document:
    owner, _, name = account.partition("/")
    return {
        "kind": kind,
        "metadata": {"name": name, **({"namespace": namespace} if namespace else {})},
        "roleRef": {"kind": of or kind.removesuffix("Binding"), "name": role},
        "subjects": [{"kind": "ServiceAccount", "namespace": owner, "name": name}],
    }


READ_PODS: Document = {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}


def test_an_apply_that_made_something_used_both_verbs_and_one_that_changed_something_only_patch() -> None:
    made, changed = (
        the(a_line(BY_OPERATOR, "patch", "rayjobs", code=code, apiGroup="ray.io", name="shop-1-a1"))
        for code in (201, 200)
    )
    assert {use.right for use in made} == {Right("ray.io", "rayjobs", "patch"), Right("ray.io", "rayjobs", "create")}
    assert {use.right for use in changed} == {Right("ray.io", "rayjobs", "patch")}


def test_a_use_tells_account_subresource_namespace_and_name() -> None:
    (use,) = the(
        a_line(BY_OPERATOR, "patch", "trainingruns", apiGroup="drivetrain.dev", name="shop-1", subresource="status")
    )
    assert use == Use(OPERATOR, Right("drivetrain.dev", "trainingruns/status", "patch"), "team-a", "shop-1")


def test_people_and_paths_that_belong_to_no_resource_are_left_out() -> None:
    discovery = json.dumps({"verb": "get", "user": {"username": BY_OPERATOR}, "responseStatus": {"code": 200}})
    assert not the(a_line("kubernetes-admin", "get", "secrets"), discovery)


def test_a_role_grants_in_its_namespace_and_a_cluster_role_where_it_is_bound() -> None:
    found = grants(
        [
            a_role("Role", "reader", READ_PODS, namespace="team-a"),
            a_role("Role", "reader", namespace="team-b"),
            a_role("ClusterRole", "reader", READ_PODS),
            a_binding("RoleBinding", "reader", "ns/by-role", namespace="team-a"),
            a_binding("RoleBinding", "reader", "ns/of-another", namespace="team-b"),
            a_binding("RoleBinding", "reader", "ns/within", of="ClusterRole", namespace="team-b"),
            a_binding("ClusterRoleBinding", "reader", "ns/everywhere"),
        ]
    )
    assert found == {
        Grant("ns/by-role", PODS, "team-a"),
        Grant("ns/within", PODS, "team-b"),
        Grant("ns/everywhere", PODS),
    }


def test_a_grant_for_one_name_does_not_cover_another() -> None:
    grant = Grant(RUN, Right("", "configmaps", "patch"), "team-a", frozenset({"trainingrun-shop-1-report"}))
    assert grant.covers(Use(RUN, grant.right, "team-a", "trainingrun-shop-1-report"))
    assert not grant.covers(Use(RUN, grant.right, "team-a", "trainingrun-shop-2-report"))
    assert not grant.covers(Use(RUN, grant.right, "team-b", "trainingrun-shop-1-report"))


def test_a_right_in_one_namespace_is_none_on_the_cluster() -> None:
    assert not Grant(OPERATOR, PODS, "team-a").covers(Use(OPERATOR, PODS, "", ""))
    assert Grant(OPERATOR, PODS).covers(Use(OPERATOR, PODS, "team-a", ""))


def test_nothing_is_wrong_where_used_equals_granted() -> None:
    assert findings([Use(OPERATOR, PODS, "team-a", "")], [Grant(OPERATOR, PODS, "team-a")]) == ()


def test_what_no_role_grants_is_told_although_it_was_allowed() -> None:
    """Some other binding, of a group for instance, may have allowed it; the chart's roles would not."""
    (told,) = findings([Use(OPERATOR, PODS, "team-b", "")], [Grant(OPERATOR, PODS, "team-a")])
    assert told == "drivetrain-system/drivetrain: list pods in team-b: no Role grants it"


def test_an_idle_right_is_told_unless_it_is_expected() -> None:
    given = [Grant(OPERATOR, PODS), Grant(OPERATOR, Right("ray.io", "rayservices", "delete"))]
    used = [Use(OPERATOR, PODS, "", "")]
    assert findings(used, given) == ("operator: delete rayservices.ray.io is granted and never used",)
    assert findings(used, given, idle=[Right("ray.io", "rayservices", "delete")]) == ()


def test_an_expected_idle_right_may_be_used() -> None:
    assert findings([Use(OPERATOR, PODS, "", "")], [Grant(OPERATOR, PODS)], idle=[PODS]) == ()


def test_a_right_that_is_used_in_one_of_two_namespaces_is_not_idle() -> None:
    given = [Grant(OPERATOR, PODS, "team-a"), Grant(OPERATOR, PODS, "team-b")]
    assert findings([Use(OPERATOR, PODS, "team-a", "")], given) == ()


def test_a_refusal_is_told_unless_these_words_are_expected_in_that_namespace() -> None:
    used = the(a_line(BY_OPERATOR, "patch", "configmaps", code=403, name="x"), a_line(BY_OPERATOR, "list", "pods"))
    given = [Grant(OPERATOR, PODS), Grant(OPERATOR, Right("", "configmaps", "patch"))]
    refused = "drivetrain-system/drivetrain: patch configmaps x in team-a: refused, no"
    idle = "operator: patch configmaps is granted and never used"
    assert findings(used, given) == (refused, idle)
    assert findings(used, given, refused={"team-b": "no"}) == (refused, idle)
    assert findings(used, given, refused={"team-a": "yes"}) == (refused, idle)
    assert findings(used, given, refused={"team-a": "no"}) == (idle,)


def test_the_operator_may_be_refused_what_it_can_do_without() -> None:
    right = Right("kueue.x-k8s.io", "clusterqueues", "get")
    assert findings([Use(OPERATOR, right, "", "pool", refused="no")], []) == ()


def made(account: str) -> list[Use]:
    """The operator makes an account."""
    namespace, _, name = account.partition("/")
    return [Use(OPERATOR, right, namespace, name) for right in MADE]


def may_report(account: str, *verbs: str) -> list[Grant]:
    name = f"{account.partition('/')[2]}-report"
    return [Grant(account, Right("", "configmaps", verb), "team-a", frozenset({name})) for verb in verbs]


def test_accounts_that_the_operator_made_are_judged_too() -> None:
    makes = [Grant(OPERATOR, right) for right in MADE]
    report = Use(RUN, Right("", "configmaps", "patch"), "team-a", "trainingrun-shop-1-report")
    other = Use(RUN, Right("", "configmaps", "patch"), "team-a", "trainingrun-shop-2-report")
    given = [*makes, *may_report(RUN, "patch")]
    assert findings([*made(RUN), report], given) == ()
    (told,) = findings([*made(RUN), report, other], given)
    assert told == f"{RUN}: patch configmaps trainingrun-shop-2-report in team-a: no Role grants it"


def test_one_run_may_stay_silent_but_not_all_of_them() -> None:
    silent = "team-a/trainingrun-shop-2"
    given = [*(Grant(OPERATOR, right) for right in MADE), *may_report(RUN, "patch"), *may_report(silent, "patch")]
    report = Use(RUN, Right("", "configmaps", "patch"), "team-a", "trainingrun-shop-1-report")
    assert findings([*made(RUN), *made(silent), report], given) == ()
    (told,) = findings([*made(RUN), *made(silent)], given)
    assert told == "trainingrun: patch configmaps is granted and never used"


def test_what_runs_use_does_not_make_a_right_of_endpoints_busy() -> None:
    given = [*(Grant(OPERATOR, right) for right in MADE), *may_report(RUN, "get"), *may_report(ENDPOINT, "get")]
    read = Use(RUN, Right("", "configmaps", "get"), "team-a", "trainingrun-shop-1-report")
    (told,) = findings([*made(RUN), *made(ENDPOINT), read], given)
    assert told == "deployment: get configmaps is granted and never used"


def test_accounts_of_others_are_not_judged() -> None:
    assert findings([Use("kueue-system/kueue", PODS, "", "")], [Grant("kueue-system/kueue", PODS)]) == ()


def test_a_secret_that_is_read_is_told_even_where_a_role_grants_it() -> None:
    secrets = Right("", "secrets", "list")
    (told,) = findings([Use(OPERATOR, secrets, "", "")], [Grant(OPERATOR, secrets)])
    assert told.endswith("nothing of ours reads a Secret")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "audit.log"
    path.write_text(a_line(BY_OPERATOR, "list", "secrets") + "\n")
    return path


def test_what_was_asked_for_before_is_not_read(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = audit.begin(Kubectl(), {audit.LOG_ENV: str(log)})
    monkeypatch.setattr(Kubectl, "__call__", lambda self, *command: json.dumps({"items": []}))
    assert judge.findings() == ()
    with log.open("a") as file:
        file.write(a_line(BY_OPERATOR, "get", "secrets", name="keys") + "\n")
    assert any("nothing of ours reads a Secret" in each for each in judge.findings())


def test_a_log_that_was_begun_anew_is_no_judge(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = audit.begin(Kubectl(), {audit.LOG_ENV: str(log)})
    monkeypatch.setattr(Kubectl, "__call__", lambda self, *command: json.dumps({"items": []}))
    log.write_text("")
    with pytest.raises(AssertionError, match="begun anew"):
        judge.findings()


def test_rare_rights_are_granted_and_used_in_nightly_tests_that_exist() -> None:
    granted = {
        Right(right.group, resource, verb)
        for right in (*rights.OPERATOR, *rights.LEASE, *rights.CLUSTER_QUEUES)
        for resource in right.resources
        for verb in right.verbs
    }
    assert RARE.keys() <= granted
    for where in RARE.values():
        path, _, name = where.partition("::")
        source = (ROOT / path).read_text()
        assert name in {each.name for each in ast.parse(source).body if isinstance(each, ast.FunctionDef)}, where
        assert "pytest.mark.nightly" in source, where
