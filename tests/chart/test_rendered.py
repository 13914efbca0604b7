"""The chart without a cluster: lint, what each mode renders, and what wrong values are answered with."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from drivetrain.api import chart, rights
from drivetrain.api.crds import crds
from drivetrain.api.documents import JSON, Document, documents, labels_of, mapping, name_of, namespace_of, text, texts
from tests.support.helm import CHART, NAMESPACE, VERSION, HelmError, helm, identities, of_kind, render

pytestmark = pytest.mark.binaries

EVERYTHING: Mapping[str, JSON] = {
    "evaluation": {"enabled": True},
    "metrics": {
        "serviceMonitor": {"enabled": True},
        "prometheusRule": {"enabled": True},
        "dashboard": {"enabled": True},
    },
    "rbac": {"clusterQueues": True},
    "imagePullSecrets": [{"name": "registry"}],
    "podLabels": {"team": "platform"},
    "podAnnotations": {"note": "x"},
    "nodeSelector": {"pool": "system"},
    "tolerations": [{"key": "system", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "priorityClassName": "system-cluster-critical",
    "serviceAccount": {"name": "operator", "annotations": {"note": "x"}},
}
TEAMS: Mapping[str, JSON] = {"watchNamespaces": ["team-a", "team-b"]}


def test_the_generated_files_are_what_the_models_say() -> None:
    assert chart.main(["--check", str(CHART)]) == 0


def test_a_changed_generated_file_is_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "files/argocd/resource_customizations").mkdir(parents=True)
    assert chart.main([str(tmp_path)]) == 0
    assert chart.main(["--check", str(tmp_path)]) == 0
    (tmp_path / "values.yaml").write_text("replicas: 3\n")
    (tmp_path / "templates/crds/old.yaml").write_text("")
    assert chart.main(["--check", str(tmp_path)]) == 1
    assert "old.yaml, values.yaml" in capsys.readouterr().err


def test_helm_lint_has_nothing_to_say() -> None:
    for values in ({}, TEAMS, EVERYTHING):
        assert "[WARNING]" not in helm("lint", "--strict", str(CHART), *VERSION, values=values)


def test_the_definitions_are_those_of_the_models_and_stay_when_the_release_goes() -> None:
    rendered = {name_of(each): each for each in of_kind(render(), "CustomResourceDefinition")}
    for document in crds().values():
        found = rendered.pop(name_of(document))
        assert found["spec"] == json.loads(json.dumps(document["spec"]))
        assert mapping(found, "metadata", "annotations")["helm.sh/resource-policy"] == "keep"
    assert not rendered
    assert not of_kind(render({"crds": {"install": False}}), "CustomResourceDefinition")


def rules(role: Document) -> tuple[Document, ...]:
    return documents(role, "rules")


def test_both_modes_grant_the_same_rights() -> None:
    everywhere, teams = render(), render(TEAMS)
    wanted = [json.loads(json.dumps(right.rule)) for right in rights.OPERATOR]
    (cluster_role,) = of_kind(everywhere, "ClusterRole", "drivetrain")
    assert list(rules(cluster_role)) == wanted
    roles = of_kind(teams, "Role", "drivetrain")
    assert [namespace_of(role) for role in roles] == ["team-a", "team-b"]
    assert all(list(rules(role)) == wanted for role in roles)


def test_cluster_queues_are_read_only_where_that_is_asked_for() -> None:
    for mode in ({}, TEAMS):
        assert not of_kind(render(mode), "ClusterRole", "drivetrain-cluster-queues")
        asked = render({**mode, "rbac": {"clusterQueues": True}})
        (role,) = of_kind(asked, "ClusterRole", "drivetrain-cluster-queues")
        assert list(rules(role)) == [json.loads(json.dumps(right.rule)) for right in rights.CLUSTER_QUEUES]
        (binding,) = of_kind(asked, "ClusterRoleBinding", "drivetrain-cluster-queues")
        assert text(binding, "roleRef", "name") == name_of(role)


def test_with_named_namespaces_the_operator_has_no_right_outside_of_them() -> None:
    rendered = render(TEAMS)
    assert not of_kind(rendered, "ClusterRoleBinding")
    bound = of_kind(rendered, "RoleBinding")
    assert {(namespace_of(each), name_of(each)) for each in bound} == {
        ("team-a", "drivetrain"),
        ("team-b", "drivetrain"),
        (NAMESPACE, "drivetrain-lease"),
    }
    assert not of_kind(rendered, "ValidatingAdmissionPolicy")


def test_cluster_wide_the_policy_is_always_there() -> None:
    rendered = render()
    assert len(of_kind(rendered, "ValidatingAdmissionPolicy")) == 1
    (binding,) = of_kind(rendered, "ValidatingAdmissionPolicyBinding")
    assert mapping(binding, "spec") == {"policyName": "drivetrain", "validationActions": ["Deny"]}


def test_nothing_dangerous_is_granted() -> None:
    for values in ({}, TEAMS):
        for role in (*of_kind(render(values), "ClusterRole"), *of_kind(render(values), "Role")):
            for rule in rules(role):
                assert not {"*", "bind", "escalate", "impersonate"} & {*map(str, rule["verbs"] or ())}  # type: ignore[arg-type]  # as Helm rendered it
                resources = {*map(str, rule["resources"] or ())}  # type: ignore[arg-type]  # as Helm rendered it
                assert not {"*", "secrets", "nodes", "namespaces"} & resources
                assert "pods" not in resources or "create" not in (rule["verbs"] or ())  # type: ignore[operator]  # as Helm rendered it


def operator_pod(values: Mapping[str, JSON]) -> Document:
    (deployment,) = of_kind(render(values), "Deployment", "drivetrain")
    return mapping(deployment, "spec", "template", "spec")


def environment(values: Mapping[str, JSON]) -> dict[str, str]:
    (container,) = documents(operator_pod(values), "containers")
    return {text(each, "name"): text(each, "value") for each in documents(container, "env")}


def test_the_operator_is_told_what_the_values_say() -> None:
    told = environment(
        {
            **TEAMS,
            "rayImage": {"repository": "example.org/ray", "tag": "7", "pullSecrets": ["registry", "mirror"]},
            "rayVersion": "2.61.0",
            "mlflow": {"url": "http://mlflow.example.org"},
            "networkPolicies": {"apiServerPorts": [443, 16443]},
        }
    )
    assert told == {
        "DRIVETRAIN_API_SERVER_PORTS": "443,16443",
        "DRIVETRAIN_HTTP_PORT": "8080",
        "DRIVETRAIN_NAMESPACES": "team-a,team-b",
        "DRIVETRAIN_MLFLOW_URL": "http://mlflow.example.org",
        "DRIVETRAIN_RAY_IMAGE": "example.org/ray:7",
        "DRIVETRAIN_RAY_PULL_SECRETS": "registry,mirror",
        "DRIVETRAIN_RAY_VERSION": "2.61.0",
    }


def test_without_an_mlflow_of_its_own_the_evaluation_is_used() -> None:
    assert environment({})["DRIVETRAIN_MLFLOW_URL"] == ""
    assert environment({"evaluation": {"enabled": True}})["DRIVETRAIN_MLFLOW_URL"] == (
        "http://drivetrain-mlflow.drivetrain.svc:5000"
    )


def test_monitoring_and_evaluation_are_off_unless_asked() -> None:
    kinds = {kind for kind, _, _ in identities(render())}
    assert not kinds & {"ServiceMonitor", "PrometheusRule", "PersistentVolumeClaim", "Secret", "ConfigMap"}


def test_every_object_has_a_name_of_its_own_and_helms_labels() -> None:
    for values in ({}, TEAMS, EVERYTHING):
        rendered = render(values, tests=True)
        assert len(set(identities(rendered))) == len(rendered)
        for each in rendered:
            assert labels_of(each)["app.kubernetes.io/managed-by"] == "Helm", identities((each,))
            assert labels_of(each)["app.kubernetes.io/instance"] == "drivetrain"


def test_selectors_and_volumes_keep_their_names_over_an_upgrade(tmp_path: Path) -> None:
    """What Kubernetes does not let change, or would lose data, must not follow the version."""
    newer = tmp_path / "drivetrain"
    newer.mkdir()
    for file in CHART.rglob("*"):
        if file.is_file():
            target = newer / file.relative_to(CHART)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    declared = yaml.safe_load((CHART / "Chart.yaml").read_text())
    (newer / "Chart.yaml").write_text(yaml.safe_dump({**declared, "version": "9.9.9", "appVersion": "9.9.9"}))
    before, after = render(EVERYTHING), render(EVERYTHING, chart=newer)
    assert identities(before) == identities(after)

    def lasting(rendered: tuple[Document, ...]) -> list[object]:
        selectors = [mapping(each, "spec", "selector") for each in of_kind(rendered, "Deployment")]
        claims = [mapping(each, "spec") for each in of_kind(rendered, "PersistentVolumeClaim")]
        return [*selectors, *claims]

    assert lasting(before) == lasting(after)
    assert all("9.9.9" not in json.dumps(each) for each in lasting(after))
    (deployment,) = of_kind(after, "Deployment", "drivetrain")
    (container,) = documents(deployment, "spec", "template", "spec", "containers")
    assert text(container, "image") == "drivetrain/operator:9.9.9"


WRONG: Mapping[str, tuple[Mapping[str, JSON], str]] = {
    "a misspelt value": ({"watchNamespace": ["a"]}, "watchNamespace"),
    "a misspelt part of a value": ({"image": {"tags": "1"}}, "tags"),
    "one namespace as a text": ({"watchNamespaces": "team-a"}, "watchNamespaces"),
    "a namespace twice": ({"watchNamespaces": ["team-a", "team-a"]}, "watchNamespaces"),
    "a Secret as an object": ({"rayImage": {"pullSecrets": [{"name": "registry"}]}}, "pullSecrets"),
    "no namespace's name": ({"watchNamespaces": ["Team A"]}, "watchNamespaces"),
    "no replicas": ({"replicas": 0}, "replicas"),
    "a pull policy that does not exist": ({"image": {"pullPolicy": "Sometimes"}}, "pullPolicy"),
    "a tag with a colon": ({"image": {"tag": "a:b"}}, "tag"),
    "half a Ray version": ({"rayVersion": "2.60"}, "rayVersion"),
    "an address without a scheme": ({"mlflow": {"url": "mlflow:5000"}}, "url"),
    "a quantity in words": ({"evaluation": {"s3": {"size": "much"}}}, "size"),
    "a store that is not S3": ({"test": {"store": "file:///tmp"}}, "store"),
    "a text where a switch is meant": ({"evaluation": {"enabled": "yes"}}, "enabled"),
    "no port of the API server": ({"networkPolicies": {"apiServerPorts": []}}, "apiServerPorts"),
    "no list of the API server's ports": ({"networkPolicies": {"apiServerPorts": None}}, "apiServerPorts"),
    "the port of an API server that cannot be": ({"networkPolicies": {"apiServerPorts": [0]}}, "apiServerPorts"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_values_are_refused_by_name(wrong: str) -> None:
    values, named = WRONG[wrong]
    with pytest.raises(HelmError, match=named):
        render(values)


def test_no_list_of_namespaces_is_an_empty_one() -> None:
    assert render({"watchNamespaces": None}) == render({"watchNamespaces": []})


def test_the_values_of_a_chart_around_this_one_are_let_through() -> None:
    assert render({"global": {"registry": "example.org"}})


def test_the_pod_keeps_its_own_labels_whatever_is_asked() -> None:
    pod = of_kind(render({"podLabels": {"app.kubernetes.io/component": "other", "team": "a"}}), "Deployment")[0]
    assert texts(pod, "spec", "template", "metadata", "labels")["app.kubernetes.io/component"] == "operator"
