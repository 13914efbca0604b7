"""One team's life on a shared cluster, from `helm install` to `helm uninstall`, while Git is applied all the time."""

import copy
import json
import os
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import yaml

from drivetrain.api.documents import (
    Document,
    annotations_of,
    documents,
    integer,
    name_of,
    sequence,
    text,
    uid_of,
    value,
)
from drivetrain.api.kinds import DEPLOYMENT, POD, RAY_JOB, TRAINING_RUN, WORKLOAD
from drivetrain.api.names import OWNER_UID_LABEL
from tests.cluster import audit, inventory
from tests.cluster.clusters import condition
from tests.cluster.customers import Customers, customers
from tests.cluster.faults import OF_AN_ENDPOINT, Scene, suffer
from tests.cluster.gitops import TRACKING, Player
from tests.cluster.images import Images
from tests.cluster.kubectl import Kubectl, tell, until
from tests.cluster.release import ROOT, of_images, run, uninstalled
from tests.cluster.teams import Team
from tests.cluster.tracking import Mlflow

PROJECT = "renewals"
COMMAND_SECONDS, PROMOTED_SECONDS, REJECTED_SECONDS, NOTICED_SECONDS = 400, 240, 360, 180
TRAINED_SECONDS, GONE_SECONDS = 300, 120
SEED = int(os.environ.get("DRIVETRAIN_SEED", "4"))
"""Which fault the story suffers."""
TREES = 4_000
COSTLY = [{"expression": "channel = 'email'", "scope": "PerDecision"}]
"""A constraint that somebody merges, and that costs four dollars a renewal."""


@pytest.mark.timeout(1500)
def test_a_team_goes_round_the_loop_under_git_and_leaves_nothing_behind(
    cluster: Kubectl, images: Images, tmp_path: Path
) -> None:
    judge = audit.begin(cluster)
    platform = list(yaml.safe_load_all((ROOT / "examples" / "pool" / "platform.yaml").read_text()))
    team = Team(cluster.within("team-a"))
    project = team.project()
    values = tmp_path / "values.yaml"
    values.write_text(json.dumps(of_images(images)))
    make, install, prepare, declare, decide = commands()
    with cleared(cluster, platform), uninstalled(cluster) as system, Player(team.kubectl) as git:
        with step("install"):
            shell(make)
            shell(f"{install} --values {values}")
        with step("prepare"):
            shell(prepare)
        before = inventory.within(team.kubectl)
        with step("first decision"):
            shell(declare)
            git.commit(*platform, project)
            it_is_todays_policy(json.loads(shell(decide).splitlines()[-1]))
        it_was_queued_and_registered(team.kubectl, system)
        with step("a look with kubectl"):
            a_person_sees_it_through_kubectl()
        judge.look()
        url = text(team.kubectl.get(DEPLOYMENT, PROJECT) or {}, "status", "url")
        with customers(team.kubectl, images.ray, url, "renewals-keys") as people:
            with step("promotion"):
                until(lambda: stable(team) == "1", PROMOTED_SECONDS, "version 1 is promoted")
            served_by = serving_pods(team)
            with step("rejection"):
                git.commit(*platform, with_constraints(project, COSTLY))
                rejected = until(lambda: rejections(team), REJECTED_SECONDS, "the candidate is rejected")
            with step("the same manifests again"):
                it_stays_rejected(git, team, rejected)
            assert serving_pods(team) == served_by
            assert git.difference() == ""
            children_carry_no_mark_of_git(team)
            git.commit(*platform, project)
            fault = random.Random(SEED).choice(OF_AN_ENDPOINT)
            with step(fault.name):
                scene = Scene(team.kubectl, system, PROJECT)
                until(lambda: not condition(scene.endpoint, "Degraded"), 180, "Git's return is followed")
                suffer(fault, scene)
            with step("change of customers"):
                people.spend(0.6)
                noticed = until(lambda: retraining(team), NOTICED_SECONDS, "a retraining is started")
                assert noticed in ("Calibration", "KpiDrop")
            with step("preemption"):
                until(lambda: ended(team.kubectl, f"{PROJECT}-2"), TRAINED_SECONDS, "the retraining ends")
                a_high_run_preempts_a_low_one(git, team, [*platform, project])
                judge.look()
            nobody_was_refused(people, fault.name)
        assert git.findings == []
        assert judge.findings() == ()
        git.commit(*platform)
        with step("deletion"):
            team.kubectl("delete", "dtp", "--all", "--wait=true", seconds=GONE_SECONDS)
            inventory.until_gone(team.kubectl, before, GONE_SECONDS)


def commands() -> list[str]:
    """The five commands of the README that lead from a cluster with KubeRay and Kueue to the first decision."""
    section = (ROOT / "README.md").read_text().partition("## On a cluster")[2].partition("\n## ")[0]
    block = section.split("```sh\n")[2].partition("```")[0].replace("\\\n", "")
    return [line.partition("  #")[0] for line in block.splitlines()]


def shell(command: str) -> str:
    """Runs a line as it stands in the README."""
    return run("bash", "-c", command, seconds=COMMAND_SECONDS)


@contextmanager
def step(name: str) -> Iterator[None]:
    """Tells how long a part of the story took."""
    began = monotonic()
    yield
    sys.stderr.write(f"story: {name} took {monotonic() - began:.0f} s\n")


@contextmanager
def cleared(cluster: Kubectl, platform: list[Document]) -> Iterator[None]:
    """Takes away what the platform team applied; what went on there is told when the story failed."""
    here = cluster.within("team-a")
    try:
        yield
    except BaseException:
        tell(here)
        raise
    finally:
        manifests = json.dumps({"apiVersion": "v1", "kind": "List", "items": platform})
        here("delete", "--ignore-not-found", "-f", "-", content=manifests, seconds=300)


def with_constraints(project: dict[str, Any], constraints: list[dict[str, str]]) -> dict[str, Any]:
    changed = copy.deepcopy(project)
    changed["spec"]["objective"]["constraints"] = constraints
    return changed


def on_gpus(project: dict[str, Any], name: str, gpus: int, trials: int) -> dict[str, Any]:
    """The project without an endpoint, trained by one worker with GPUs; a trial takes seconds."""
    changed = copy.deepcopy(project)
    changed["metadata"]["name"] = name
    del changed["spec"]["serving"]
    changed["spec"]["data"]["store"]["uri"] += f"-{name}"
    worker = {"cpu": "100m", "memory": "2Gi", "gpu": gpus}
    changed["spec"]["training"]["scaling"] = {"workers": 1, "resourcesPerWorker": worker}
    search = {"n_estimators": {"choices": [TREES + trial for trial in range(trials)]}}
    changed["spec"]["training"]["candidates"] = [{"name": "trees", "estimator": "LightGBM", "search": search}]
    changed["spec"]["training"]["tuning"] |= {"trials": trials, "parallelTrials": 1}
    return changed


def it_is_todays_policy(answer: dict[str, Any]) -> None:
    """No version decides yet; one unit in ten explores."""
    assert len(answer["rows"]) == 2
    for row in answer["rows"]:
        assert row["modelVersion"] is None
        assert row["explored"] or row["action"] == {"channel": "email", "credit": 5.0}


def it_was_queued_and_registered(team: Kubectl, system: Kubectl) -> None:
    """The run went through Kueue's queue, and MLflow knows its version."""
    found = team.get(TRAINING_RUN, f"{PROJECT}-1") or {}
    assert condition(found, "Ready")["reason"] == "Succeeded"
    assert text(found, "status", "modelVersion") == "1"
    (workload,) = team.items(WORKLOAD)
    assert text(workload, "spec", "queueName") == "pool"
    finished = ("get", "workloads", "-o", "jsonpath={.items[*].status.conditions[?(@.type=='Finished')].reason}")
    assert until(lambda: team(*finished), 60, "Kueue has its quota back") == "Succeeded"
    with Mlflow.of(system) as mlflow:
        assert mlflow.run_of(f"{team.namespace}.{PROJECT}", "1") == text(found, "status", "mlflowRun")


def a_person_sees_it_through_kubectl() -> None:
    """kubectl finds the plugin beside this Python, and its answers tell of this cluster."""
    plugin, there = f"PATH={Path(sys.executable).parent}:$PATH kubectl drivetrain", "-n team-a"
    assert shell(f"{plugin} runs {PROJECT} {there} -o name").split() == [f"trainingruns.drivetrain.dev/{PROJECT}-1"]
    assert f"{PROJECT}-1" in shell(f"{plugin} status {PROJECT} {there}")
    assert "passed all gates" in shell(f"{plugin} why {PROJECT}-1 {there}")
    checks = shell(f"{plugin} doctor {there}")
    assert all(part in checks for part in ("KubeRay", "Kueue", "operator")), checks


def stable(team: Team) -> str:
    return text(team.kubectl.get(DEPLOYMENT, PROJECT) or {}, "status", "stable", "version")


def serving_pods(team: Team) -> dict[str, int]:
    """The endpoint's Pods, and how often their containers were restarted."""
    owner = team.kubectl.get(DEPLOYMENT, PROJECT) or {}
    found = team.kubectl.items(POD, {OWNER_UID_LABEL: uid_of(owner)})
    return {
        uid_of(pod): sum(integer(each, "restartCount") for each in documents(pod, "status", "containerStatuses"))
        for pod in found
    }


def rejections(team: Team) -> list[Document]:
    """What was rejected; the stable version serves on meanwhile."""
    found = team.kubectl.get(DEPLOYMENT, PROJECT) or {}
    assert condition(found, "Ready")["status"] == "True"
    return [each for each in sequence(found, "status", "rejected") if isinstance(each, dict)]


def a_high_run_preempts_a_low_one(git: Player, team: Team, manifests: list[Document]) -> None:
    """The low run holds all GPUs; the high one takes them, and the low one goes on afterwards as the same attempt."""
    here = team.kubectl
    low, high = (on_gpus(team.project(), name, gpus, trials) for name, gpus, trials in (("low", 4, 30), ("high", 1, 1)))
    high["spec"]["training"]["queue"]["priorityClass"] = "production"
    git.commit(*manifests, low)
    until(lambda: holds_gpus(here, "low-1"), TRAINED_SECONDS, "low holds all GPUs")
    before = here.get(RAY_JOB, "low-1-a1-t") or {}
    git.commit(*manifests, low, high)
    evicted = until(lambda: reason(here, "low-1") in ("Queued", "Evicted"), TRAINED_SECONDS, "low is preempted")
    assert evicted
    until(lambda: ended(here, "high-1"), TRAINED_SECONDS, "high ends")
    until(lambda: ended(here, "low-1"), TRAINED_SECONDS, "low ends")
    after = here.get(RAY_JOB, "low-1-a1-t") or {}
    assert uid_of(after) == uid_of(before)
    assert text(after, "status", "rayClusterName") != text(before, "status", "rayClusterName")
    run = here.get(TRAINING_RUN, "low-1") or {}
    assert value(run, "status", "attempt") == 1
    assert integer(run, "status", "incarnation") >= 2
    charged = value(run, "status", "gpuSeconds")
    assert isinstance(charged, int | float)
    assert charged >= 4


def reason(team: Kubectl, run: str) -> str:
    found = team.get(TRAINING_RUN, run) or {}
    return str(condition(found, "Reconciling").get("reason", ""))


def holds_gpus(team: Kubectl, run: str) -> bool:
    """Whether Kueue has admitted the job that trains; the one that prepares it asks for no GPU."""
    found = team.get(TRAINING_RUN, run) or {}
    reserved = condition(found, "QuotaReserved").get("status") == "True"
    return reserved and text(found, "status", "rayJob").endswith("-t")


def ended(team: Kubectl, run: str) -> bool:
    found = team.get(TRAINING_RUN, run) or {}
    assert condition(found, "Failed").get("status") != "True", text(found, "status", "why")
    return condition(found, "Complete").get("status") == "True"


def it_stays_rejected(git: Player, team: Team, rejected: list[Document]) -> None:
    """Applying the same manifests again rolls nothing out."""
    assert [text(each, "reason") for each in rejected] == ["Harm"]
    rounds = git.rounds
    until(lambda: git.rounds >= rounds + 4, 60, "Git is applied four times more")
    assert rejections(team) == rejected
    found = team.kubectl.get(DEPLOYMENT, PROJECT) or {}
    assert value(found, "status", "candidate") is None
    assert condition(found, "Degraded")["reason"] == "CandidateRejected"
    assert stable(team) == "1"


def children_carry_no_mark_of_git(team: Team) -> None:
    """Argo CD would prune them."""
    found = json.loads(team.kubectl("get", "dtr,dtd,rayjobs,rayservices,configmaps,roles,services", "-o", "json"))
    assert documents(found, "items")
    assert [name_of(each) for each in documents(found, "items") if TRACKING in annotations_of(each)] == []


def retraining(team: Team) -> str:
    """Why the loop trains again, once it does."""
    return text(team.kubectl.get(TRAINING_RUN, f"{PROJECT}-2") or {}, "spec", "trigger", "cause")


def nobody_was_refused(people: Customers, fault: str) -> None:
    """Nobody was refused by promotion, rejection, preemption and retraining; a killed head answers nobody."""
    told = people.told()
    assert told["decided"]["1"] > 1_000
    if "Ray head" not in fault:
        assert told["failures"] == {}
