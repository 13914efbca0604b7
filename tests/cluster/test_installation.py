"""The release on a node: it tests itself, is upgraded under a run and an endpoint, and leaves only its definitions."""

import json
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from drivetrain.api.documents import (
    Document,
    documents,
    integer,
    labels_of,
    mapping,
    name_of,
    sequence,
    text,
    texts,
    uid_of,
)
from drivetrain.api.kinds import (
    CONFIG_MAP,
    CUSTOM_RESOURCE_DEFINITION,
    DEPLOYMENT,
    DRIVETRAIN_PROJECT,
    LEASE,
    POD,
    RAY_JOB,
    RAY_SERVICE,
    TRAINING_RUN,
    Kind,
)
from drivetrain.api.ledger import DeploymentLedger
from drivetrain.api.names import LEDGER_KEY, REVISION_LABEL, ledger_name
from tests.cluster import audit, clusters, inventory, release
from tests.cluster.images import Images
from tests.cluster.kubectl import Kubectl, until
from tests.cluster.queues import local_queue
from tests.cluster.teams import Team

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(1200)]

TEAM = "installation"
ENABLE = "drivetrain.dev/enabled"
STARTED, SEEN, GONE = 300, 60, 180
OLDER = "0.0.9"
RUN, ENDPOINT = "renewals-1", "renewals"
DEFINITION = "trainingruns.drivetrain.dev"
NEW_FIELD = "ttlAfterFinished"
LEASE_NAME = "drivetrain-operator"
FURNITURE = {"configmap/kube-root-ca.crt", "serviceaccount/default"}
"""What Kubernetes puts into every namespace."""
UPGRADE = f"tests/cluster/{Path(__file__).name}::test_an_upgrade_restarts_nothing_that_trains_or_serves"


@contextmanager
def label(cluster: Kubectl, namespace: str) -> Iterator[None]:
    """Enables a namespace meanwhile."""
    cluster("label", "namespace", namespace, f"{ENABLE}=true", "--overwrite")
    try:
        yield
    finally:
        cluster("label", "namespace", namespace, f"{ENABLE}-")


def helm_test() -> str:
    """Runs the test of the release, which ends well only once its run is Ready; returns the verdict.

    Fails with what the test has said.
    """
    return release.helm("test", release.NAME, "--timeout=8m", seconds=500)


def test_the_release_tests_itself_in_an_enabled_namespace_and_leaves_nothing(cluster: Kubectl, images: Images) -> None:
    with release.installed(cluster, images) as system:
        before = inventory.within(system)
        with pytest.raises(AssertionError, match="NamespaceNotEnabled"):
            helm_test()
        with label(cluster, release.NAMESPACE):
            assert re.search(r"^Phase: +Succeeded$", helm_test(), re.MULTILINE)
            inventory.until_gone(system, before, GONE)


def test_without_a_store_the_test_of_the_release_fails_and_says_what_it_needs(cluster: Kubectl, images: Images) -> None:
    with release.installed(cluster, images, evaluation={"enabled": False}) as system:
        before = inventory.within(system)
        with pytest.raises(AssertionError, match=r"give test\.store .* and test\.secretName"):
            helm_test()
        inventory.until_gone(system, before, GONE)


def an_older_chart(folder: Path) -> Path:
    """The chart with a lower version, and a definition without one of its fields."""
    older = folder / "drivetrain"
    shutil.copytree(release.CHART, older)
    declared = yaml.safe_load((older / "Chart.yaml").read_text())
    (older / "Chart.yaml").write_text(yaml.safe_dump({**declared, "version": OLDER, "appVersion": OLDER}))
    definition = older / "templates" / "crds" / f"drivetrain.dev_{DEFINITION.partition('.')[0]}.yaml"
    lines = definition.read_text().splitlines(keepends=True)
    start = next(at for at, line in enumerate(lines) if line.strip() == f"{NEW_FIELD}:")
    depth = len(lines[start]) - len(lines[start].lstrip())
    end = next(at for at in range(start + 1, len(lines)) if len(lines[at]) - len(lines[at].lstrip()) <= depth)
    definition.write_text("".join(lines[:start] + lines[end:]))
    return older


class Running(NamedTuple):
    """What a restart or another image would change of a Pod or of what it is made from."""

    uid: str
    generation: int
    restarts: int
    images: tuple[str, ...]


def running(team: Kubectl) -> Mapping[str, Running]:
    """The run's and the endpoint's Pods, and the objects that they come from."""
    found = {}
    for kind in (RAY_JOB, RAY_SERVICE, POD):
        for each in team.items(kind):
            if name_of(each).startswith(ENDPOINT):
                statuses = documents(each, "status", "containerStatuses")
                found[f"{kind} {name_of(each)}"] = Running(
                    uid_of(each),
                    integer(each, "metadata", "generation"),
                    sum(integer(status, "restartCount") for status in statuses),
                    tuple(text(container, "image") for container in documents(each, "spec", "containers")),
                )
    return found


def by_digest(pod: Document) -> dict[str, str]:
    """The image that a Pod runs, under a name that no Pod has used yet, as values of the chart."""
    (status, *_) = documents(pod, "status", "containerStatuses")
    repository, _, digest = text(status, "imageID").rpartition("sha256:")
    if repository:
        return {"repository": repository.rstrip("@"), "tag": f"newer@sha256:{digest}"}
    return {"repository": "sha256", "tag": digest}  # it was brought to the node without a registry: its id is its name


def a_long_run(project: dict[str, Any]) -> dict[str, Any]:
    """The team's project, whose first run goes on for longer than an upgrade takes."""
    training = project["spec"]["training"]
    training["candidates"][1] |= {
        "parameters": {"n_estimators": 800},
        "search": {"num_leaves": {"minimum": 4, "maximum": 64, "type": "Integer"}},
    }
    training["tuning"] = {"algorithm": "Random", "trials": 1000, "parallelTrials": 1, "seed": 3}
    return project


def reason(team: Kubectl, kind: Kind, name: str, type_: str) -> str:
    """Of a condition, while it is True."""
    found = clusters.condition(team.get(kind, name), type_)
    return text(found, "reason") if found.get("status") == "True" else ""


def hold(cluster: Kubectl, policy: str) -> None:
    """Stops the queue from admitting more (Hold), or lets it."""
    cluster("patch", "clusterqueue", TEAM, "--type=merge", "-p", json.dumps({"spec": {"stopPolicy": policy}}))


def annotate(team: Kubectl, kind: Kind, name: str, **annotations: str) -> None:
    """As a person asks for something."""
    wanted: Document = {f"drivetrain.dev/{key.replace('_', '-')}": each for key, each in annotations.items()}
    team.patch(kind, name, {"metadata": {"annotations": wanted}})


def has_new_field(cluster: Kubectl) -> bool:
    (version,) = documents(cluster.get(CUSTOM_RESOURCE_DEFINITION, DEFINITION) or {}, "spec", "versions")
    return NEW_FIELD in mapping(version, "schema", "openAPIV3Schema", "properties", "spec", "properties")


def holder(system: Kubectl) -> str:
    return text(system.get(LEASE, LEASE_NAME) or {}, "spec", "holderIdentity")


def operators(system: Kubectl) -> tuple[Document, ...]:
    return system.items(POD, {"app.kubernetes.io/component": "operator"})


def images_of(pods: tuple[Document, ...]) -> set[str]:
    return {text(container, "image") for pod in pods for container in documents(pod, "spec", "containers")}


def remembered_image(team: Kubectl) -> str:
    kept = texts(team.get(CONFIG_MAP, ledger_name(DEPLOYMENT.kind, ENDPOINT)) or {}, "data")[LEDGER_KEY]
    runtime = DeploymentLedger.model_validate_json(kept).runtime
    return runtime.image if runtime else ""


def the_head(team: Kubectl) -> Document:
    """The head of the endpoint's only cluster."""
    heads = [pod for pod in team.items(POD, {"ray.io/node-type": "head"}) if REVISION_LABEL in labels_of(pod)]
    (head,) = (pod for pod in heads if "deletionTimestamp" not in mapping(pod, "metadata"))
    return head


def looked_at_again(team: Kubectl, kind: Kind, name: str) -> None:
    """Waits until the operator has written a status that somebody has emptied: it has gone through the whole object."""
    emptied = json.dumps({"status": {"conditions": []}})
    team("patch", f"{kind.plural}.{kind.group}", name, "--subresource=status", "--type=merge", "-p", emptied)
    until(lambda: sequence(team.get(kind, name) or {}, "status", "conditions"), SEEN, f"{kind} {name} has a status")


def say(what: str) -> None:
    sys.stderr.write(f"== {time.strftime('%X')} {what}\n")


@contextmanager
def heard(system: Kubectl) -> Iterator[None]:
    """Tells what the operators said last, when something fails."""
    try:
        yield
    except AssertionError:
        say(system("logs", "-l", "app.kubernetes.io/component=operator", "--prefix", "--tail=60"))
        raise


def test_an_upgrade_restarts_nothing_that_trains_or_serves(
    cluster: Kubectl,
    images: Images,
    namespaces: Callable[[str], Kubectl],
    queue: Callable[[str, int], None],
    tmp_path: Path,
) -> None:
    judge = audit.begin(cluster)
    cluster.apply(release.a_namespace(release.NAMESPACE))
    system = cluster.within(release.NAMESPACE)
    until(lambda: inventory.within(system) >= FURNITURE, SEEN, "the namespace is furnished")
    bare = inventory.within(system)
    with release.installed(cluster, images, chart=an_older_chart(tmp_path)), heard(system):
        team = namespaces(TEAM)
        cluster("label", "namespace", TEAM, f"{ENABLE}-")
        queue(TEAM, 0)
        hold(cluster, "Hold")
        team.apply(local_queue("pool", TEAM))
        of_team = Team(team)
        of_team.prepare()
        before = inventory.within(team)
        _enabled_and_running(cluster, of_team)
        judge.look()
        _upgraded(cluster, system, team, images)
        _moved_when_asked(system, team)
        assert judge.findings(refused={TEAM: "is not enabled"}, test=UPGRADE) == ()
        team("delete", "dtp", ENDPOINT)
        inventory.until_gone(team, before, GONE)
    inventory.until_gone(system, bare, GONE)
    left = inventory.labelled(cluster, f"app.kubernetes.io/instance={release.NAME}")
    assert {each.partition("/")[0] for each in left} == {"customresourcedefinition.apiextensions.k8s.io"}, left


def _enabled_and_running(cluster: Kubectl, of_team: Team) -> None:
    """Nothing is made before the namespace is enabled; then the endpoint serves while the run trains."""
    team = of_team.kubectl
    without = inventory.within(team)
    team.apply(a_long_run(of_team.project()))
    say("the namespace is not enabled")
    until(
        lambda: reason(team, DRIVETRAIN_PROJECT, ENDPOINT, "Stalled") == "NamespaceNotEnabled",
        SEEN,
        "the project says that its namespace is not enabled",
    )
    assert inventory.within(team) - without == {f"drivetrainproject.drivetrain.dev/{ENDPOINT}"}
    cluster("label", "namespace", TEAM, f"{ENABLE}=true")
    until(lambda: reason(team, TRAINING_RUN, RUN, "Reconciling") == "Queued", GONE, "the run waits for quota")
    assert not reason(team, DRIVETRAIN_PROJECT, ENDPOINT, "Stalled")
    say("the endpoint starts, then the run")
    until(lambda: reason(team, DEPLOYMENT, ENDPOINT, "Ready"), STARTED, "the endpoint serves")
    hold(cluster, "None")
    until(
        lambda: integer(team.get(TRAINING_RUN, RUN) or {}, "status", "progress", "trialsDone") > 0,
        STARTED,
        "the run has tried something",
    )
    hold(cluster, "Hold")  # what was admitted goes on; a next run waits


def _upgraded(cluster: Kubectl, system: Kubectl, team: Kubectl, images: Images) -> None:
    """Another operator, another default image and another definition; every Pod of the team stays as it is."""
    was, old_operators = running(team), operators(system)
    assert not has_new_field(cluster)
    assert len(was) >= 6, sorted(was)  # RayJob and RayService, submitter, two heads, worker
    say("upgrade")
    values = release.of_images(images) | {"image": by_digest(old_operators[0]), "rayImage": by_digest(the_head(team))}
    wait = ("--wait", f"--timeout={release.READY_SECONDS}s")
    release.helm("upgrade", release.NAME, str(release.CHART), *wait, values=values)
    until(lambda: not {*map(uid_of, old_operators)} & {*map(uid_of, operators(system))}, SEEN, "the old ones are gone")
    assert images_of(old_operators) == {images.operator}
    assert images_of(operators(system)) == {":".join(by_digest(old_operators[0]).values())}
    until(lambda: holder(system).startswith(tuple(map(name_of, operators(system)))), SEEN, "a new one leads")
    assert has_new_field(cluster)
    looked_at_again(team, TRAINING_RUN, RUN)
    looked_at_again(team, DEPLOYMENT, ENDPOINT)
    until(lambda: reason(team, DEPLOYMENT, ENDPOINT, "Ready"), SEEN, "the endpoint is ready as before")
    assert running(team) == was
    assert remembered_image(team) == images.ray
    assert integer(team.get(TRAINING_RUN, RUN) or {}, "status", "attempt") == 1
    say("the run is cancelled, and goes by a field that the older definition did not have")
    annotate(team, TRAINING_RUN, RUN, cancel="now")
    until(lambda: team.get(RAY_JOB, f"{RUN}-a1") is None, SEEN, "its job is gone")
    team.patch(TRAINING_RUN, RUN, {"spec": {NEW_FIELD: "1s"}})
    until(lambda: team.get(TRAINING_RUN, RUN) is None, SEEN, "the run is gone")


def _moved_when_asked(system: Kubectl, team: Kubectl) -> None:
    """By annotation the endpoint takes the new default image: a second cluster, then the first one goes."""
    (first,) = team.items(RAY_SERVICE)
    newer = ":".join(by_digest(the_head(team)).values())
    say("the endpoint moves")
    annotate(team, DEPLOYMENT, ENDPOINT, renew_image="1")
    until(lambda: len(team.items(RAY_SERVICE)) > 1, SEEN, "a second cluster is made")
    until(lambda: team.get(RAY_SERVICE, name_of(first)) is None, STARTED, "the first cluster is gone")
    assert remembered_image(team) == newer
    assert images_of((the_head(team),)) == {newer}
    assert reason(team, DEPLOYMENT, ENDPOINT, "Ready")
    say("the Lease is deleted")
    system.delete(LEASE, LEASE_NAME)
    until(lambda: holder(system), SEEN, "an operator leads again")
