"""`drivetrain doctor`: what each sight means, and what to do about it."""

from datetime import timedelta

import pytest

from drivetrain.api.crds import crds
from drivetrain.api.documents import JSON, Document, documents, mapping
from drivetrain.cli import diagnosis
from drivetrain.cli.examination import conditional_writes
from drivetrain.cli.installation import Installation, installation
from drivetrain.controller.manifests.settings import Settings
from drivetrain.store import DirectoryStore
from tests.support.bench import Bench

NOW = Bench().now
WANTED = crds()["drivetrain.dev_trainingruns.yaml"]
ESTABLISHED: Document = {"conditions": [{"type": "Established", "status": "True"}]}


@pytest.mark.parametrize(("minor", "level"), [("36", "ok"), ("34+", "ok"), ("33", "fail")])
def test_an_old_api_server_fails(minor: str, level: str) -> None:
    assert diagnosis.kubernetes({"major": "1", "minor": minor, "gitVersion": f"v1.{minor}.0"}).level == level


@pytest.mark.parametrize(("seconds", "level"), [(1, "ok"), (-4, "ok"), (30, "warn"), (-900, "fail")])
def test_a_clock_that_is_off_is_told(seconds: int, level: str) -> None:
    assert diagnosis.clock(NOW, NOW + timedelta(seconds=seconds)).level == level


def test_a_definition_as_this_version_has_it_is_well() -> None:
    found = diagnosis.definition(WANTED, {**WANTED, "status": ESTABLISHED}, readable=True, served=True)
    assert found.level == "ok"


def test_a_definition_of_another_version_names_the_fields_that_differ() -> None:
    (version,) = documents(WANTED, "spec", "versions")
    schema = mapping(version, "schema", "openAPIV3Schema")
    spec = mapping(schema, "properties", "spec")
    fields = {key: part for key, part in mapping(spec, "properties").items() if key != "queue"} | {"novel": {}}
    changed: Document = {"properties": {**mapping(schema, "properties"), "spec": {**spec, "properties": fields}}}
    other: Document = {
        "spec": {"versions": [{"served": True, "schema": {"openAPIV3Schema": changed}}]},
        "status": ESTABLISHED,
    }
    found = diagnosis.definition(WANTED, other, readable=True, served=True)
    assert found.level == "warn"
    assert "spec.novel is unknown here, spec.queue is missing there" in found.told


def test_a_definition_that_is_not_there_fails_and_one_that_may_not_be_read_does_not() -> None:
    assert diagnosis.definition(WANTED, None, readable=True, served=False).level == "fail"
    assert diagnosis.definition(WANTED, None, readable=False, served=True).level == "warn"


def an_operator(*, ready: int = 2, version: str = "0.1.0", namespaces: str = "") -> Installation:
    env: list[JSON] = [
        {"name": "DRIVETRAIN_RAY_IMAGE", "value": "ray:1"},
        {"name": "DRIVETRAIN_RAY_VERSION", "value": "2.60.0"},
        {"name": "DRIVETRAIN_RAY_PULL_SECRETS", "value": "registry"},
        {"name": "DRIVETRAIN_API_SERVER_PORTS", "value": "16443"},
        {"name": "DRIVETRAIN_NAMESPACES", "value": namespaces},
    ]
    return installation(
        {
            "metadata": {
                "name": "drivetrain",
                "namespace": "system",
                "labels": {"app.kubernetes.io/version": version},
            },
            "spec": {"replicas": 2, "template": {"spec": {"containers": [{"env": env}]}}},
            "status": {"readyReplicas": ready},
        }
    )


def test_an_installation_tells_its_defaults() -> None:
    assert an_operator().settings == Settings(
        ray_image="ray:1", ray_version="2.60.0", pull_secrets=("registry",), api_ports=(16443,)
    )


@pytest.mark.parametrize(
    ("found", "level", "told"),
    [
        (None, "warn", "may not list Deployments"),
        ([], "fail", "none looks after namespace team-a"),
        ([an_operator(namespaces="team-b")], "fail", "those of system watch others"),
        ([an_operator(ready=0)], "fail", "has no ready Pod"),
        ([an_operator(ready=1)], "warn", "1 of 2 Pods ready"),
        ([an_operator(version="0.2.0")], "warn", "is version 0.2.0"),
        ([an_operator(namespaces="team-b, team-a")], "ok", "2 of 2 Pods ready"),
    ],
)
def test_the_operator_of_the_namespace_is_judged(found: list[Installation] | None, level: str, told: str) -> None:
    (check,) = diagnosis.operators(found, "0.1.0", "team-a", local=False)
    assert (check.level, told in check.told) == (level, True)


def test_two_operators_of_one_namespace_would_fight() -> None:
    checks = diagnosis.operators([an_operator(), an_operator()], "0.1.0", "team-a", local=False)
    assert checks[-1].level == "fail"


def test_a_lease_that_nobody_renews_has_no_leader() -> None:
    def lease(age: int) -> Document:
        return {"spec": {"holderIdentity": "a", "renewTime": (NOW - timedelta(seconds=age)).isoformat()}}

    levels = [diagnosis.leads(each, NOW, "system/lease").level for each in (lease(5), lease(300), None)]
    assert levels == ["ok", "fail", "fail"]


SERVED = {"rayjobs": True, "rayservices": True, "rayclusters": True}
RUNNING: Document = {"metadata": {"name": "kuberay-operator"}, "status": {"readyReplicas": 1}}


def a_definition(*path: str) -> Document:
    schema: Document = {}
    for name in reversed(path):
        schema = {"properties": {name: schema}}
    return {"spec": {"versions": [{"schema": {"openAPIV3Schema": schema}}]}}


def test_kuberay_must_serve_its_kinds_know_token_authentication_and_run() -> None:
    new, old = a_definition("spec", "rayClusterSpec", "authOptions"), a_definition("spec", "rayClusterSpec")
    assert diagnosis.kuberay(SERVED, new, RUNNING, local=False).level == "ok"
    assert "rayjobs are not served" in diagnosis.kuberay({**SERVED, "rayjobs": False}, new, RUNNING, local=False).told
    assert "token authentication" in diagnosis.kuberay(SERVED, old, RUNNING, local=False).told
    assert diagnosis.kuberay(SERVED, None, None, local=False).level == "warn"
    assert diagnosis.kuberay(SERVED, new, {"metadata": RUNNING["metadata"]}, local=False).level == "fail"


def test_kueue_is_only_missed_where_a_queue_is_named() -> None:
    assert diagnosis.kueue(False, False, None, []).level == "ok"
    assert diagnosis.kueue(False, False, None, ["gpu-pool"]).level == "fail"
    assert diagnosis.kueue(True, True, RUNNING, ["gpu-pool"]).level == "ok"
    assert diagnosis.kueue(True, False, RUNNING, []).level == "warn"


def test_a_queue_must_cover_what_runs_ask_for() -> None:
    local: Document = {"metadata": {"name": "q"}, "spec": {"clusterQueue": "pool"}}

    def pool(*covered: str) -> Document:
        return {"spec": {"resourceGroups": [{"coveredResources": list(covered)}]}}

    assert diagnosis.queue(local, pool("cpu", "memory", "nvidia.com/gpu"), readable=True).level == "ok"
    assert diagnosis.queue(local, pool("cpu", "memory"), readable=True).level == "warn"
    assert diagnosis.queue(local, pool("cpu", "nvidia.com/gpu"), readable=True).level == "fail"
    assert diagnosis.queue(local, None, readable=True).level == "fail"
    assert diagnosis.queue(local, None, readable=False).level == "warn"


def test_a_namespace_without_the_label_fails_where_a_policy_asks_for_it() -> None:
    bare: Document = {"metadata": {"name": "team-a"}}
    policy: Document = {"spec": {"validations": [{"expression": "... 'drivetrain.dev/enabled' ..."}]}}
    enabled: Document = {"metadata": {"name": "team-a", "labels": {"drivetrain.dev/enabled": "true"}}}
    levels = [
        diagnosis.namespace(bare, [policy]).level,
        diagnosis.namespace(bare, []).level,
        diagnosis.namespace(bare, None).level,
        diagnosis.namespace(enabled, [policy]).level,
    ]
    assert levels == ["fail", "ok", "warn", "ok"]


class Careless(DirectoryStore):
    """A server that ignores conditions, as many do."""

    def put_if_absent(self, key: str, data: bytes) -> bool:
        self.put(key, data)
        return True


class Stale(DirectoryStore):
    """A server that ignores If-Match only."""

    def put_if_match(self, key: str, data: bytes, etag: str) -> bool:
        self.put(key, data)
        return True


@pytest.mark.parametrize(
    ("store", "level", "told"),
    [
        (DirectoryStore, "ok", "honours conditional writes"),
        (Careless, "fail", "ignores If-None-Match"),
        (Stale, "fail", "ignores If-Match"),
    ],
)
def test_conditional_writes_are_really_tried(
    store: type[DirectoryStore], level: str, told: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    opened = store(tmp_path_factory.mktemp("store"))
    check = conditional_writes("S3 shop", opened, "t")
    assert (check.level, told in check.told) == (level, True)
    assert list(opened.list("")) == [], "the probe is removed"


def test_remedies_stand_below_what_is_not_well_only() -> None:
    assert "hidden" not in diagnosis.report(diagnosis.Check("clock", "ok", "fine", "hidden")).plain
    line, remedy = diagnosis.report(diagnosis.Check("KubeRay", "fail", "gone", "Install it.")).plain.splitlines()
    assert line.startswith("fail  KubeRay")
    assert remedy.strip() == "Install it."
