"""Health and actions in Argo CD, run by a real Lua on what the controllers' decisions and a simulated KubeRay left."""

from pathlib import Path

import pytest
import yaml

from drivetrain.api import names
from drivetrain.api.documents import Document, annotations_of, mapping, text
from drivetrain.api.kinds import OWN_KINDS, RAY_JOB, RAY_SERVICE
from drivetrain.controller.core.rollout import names as names_hash
from tests.chart.argo_testdata import generated, until, written
from tests.support.argocd import CUSTOMIZATIONS, STATUSES, act, actions, health
from tests.support.operator_world import World, a_quick_project
from tests.support.ray_programs import Script, version_of
from tests.support.scenarios import STORIES, Schedule, live_through

EMPTY_DEPLOYMENT: Document = {"apiVersion": "drivetrain.dev/v1alpha1", "kind": "Deployment", "metadata": {}}
KINDS = (*OWN_KINDS, RAY_JOB, RAY_SERVICE)


def files(pattern: str) -> list[object]:
    return [
        pytest.param(file, id=str(file.relative_to(CUSTOMIZATIONS))) for file in sorted(CUSTOMIZATIONS.glob(pattern))
    ]


def read(file: Path) -> Document:
    found: Document = yaml.safe_load(file.read_text())
    return found


def test_the_contributed_test_data_are_what_the_controllers_leave_behind_today() -> None:
    wanted, found = generated(), written()
    stale = {str(file.relative_to(CUSTOMIZATIONS)) for file, _ in wanted.items() ^ found.items()}
    assert not stale, "run `python -m tests.chart.argo_testdata` and look at the difference"


@pytest.mark.parametrize("file", files("*/*/health_test.yaml"))
def test_health_is_what_the_contributed_tests_say(file: Path) -> None:
    for case in yaml.safe_load(file.read_text())["tests"]:
        status, message = health(read(file.parent / case["inputPath"]))
        assert {"status": status, "message": message} == case["healthStatus"], case["inputPath"]


@pytest.mark.parametrize("file", files("*/*/actions/action_test.yaml"))
def test_actions_do_what_the_contributed_tests_say(file: Path) -> None:
    content = yaml.safe_load(file.read_text())
    for case in content["discoveryTests"]:
        offered = actions(read(file.parent / case["inputPath"]))
        assert [{"name": name, "disabled": not can} for name, can in sorted(offered.items())] == case["result"]
    for case in content["actionTests"]:
        document = read(file.parent / case["inputPath"])
        assert act(document, case["action"]) == read(file.parent / case["expectedOutputPath"])


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_every_kind_has_a_case_of_each_health_that_it_can_have(kind: object) -> None:
    file = CUSTOMIZATIONS / kind.group / kind.kind / "health_test.yaml"  # type: ignore[attr-defined]  # a Kind
    seen = {case["healthStatus"]["status"] for case in yaml.safe_load(file.read_text())["tests"]}
    missing = set(STATUSES) - seen
    assert missing <= ({"Suspended", "Degraded"} if kind == RAY_SERVICE else set())


def test_every_action_has_a_case() -> None:
    for folder in CUSTOMIZATIONS.glob("*/*/actions"):
        there = {path.parent.name for path in folder.glob("*/action.lua")}
        tried = {case["action"] for case in yaml.safe_load((folder / "action_test.yaml").read_text())["actionTests"]}
        assert there == tried, folder


@pytest.mark.parametrize("story", STORIES)
def test_whatever_a_story_leaves_behind_has_a_health(story: str) -> None:
    world = live_through(story, Schedule(until=0))
    for kind in KINDS:
        for each in world.cluster.find(kind):
            status, message = health(each)
            assert status in STATUSES
            assert message
            if kind in OWN_KINDS:
                assert actions(each)


def test_a_new_version_of_the_spec_is_not_called_healthy_before_it_was_seen() -> None:
    for kind, name in (("Deployment", "serving"), ("DrivetrainProject", "loop-running"), ("TrainingRun", "complete")):
        document = read(CUSTOMIZATIONS / "drivetrain.dev" / kind / "testdata" / f"{name}.yaml")
        assert health(document)[0] == "Healthy"
        newer = {**document, "metadata": {**mapping(document, "metadata"), "generation": 99}}
        assert health(newer) == ("Progressing", "The operator has not seen this version yet")
        assert health({**document, "status": {"observedGeneration": -1}})[0] == "Progressing"
        assert health({key: each for key, each in document.items() if key != "status"})[0] == "Progressing"


def test_an_action_sets_the_annotation_that_the_operator_answers() -> None:
    rolling = read(CUSTOMIZATIONS / "drivetrain.dev/Deployment/testdata/rolling-out.yaml")
    candidate = text(rolling, "status", "candidate", "hash")
    for action, annotation in (("promote", names.PROMOTE_ANNOTATION), ("abort", names.ABORT_ANNOTATION)):
        asked = annotations_of(act(rolling, action))[annotation]
        assert names_hash(asked, candidate)
        assert asked != candidate, "asking again must be another value"
    paused = act(rolling, "pause")
    assert annotations_of(paused)[names.PAUSE_ANNOTATION] == "true"
    assert names.PAUSE_ANNOTATION not in annotations_of(act(paused, "resume"))
    assert act(rolling, "promote")["spec"] == rolling["spec"]


def test_a_rayservice_whose_application_was_given_up_is_degraded() -> None:
    ready = read(CUSTOMIZATIONS / "ray.io/RayService/testdata/ready.yaml")
    application = {"endpoint": {"status": "DEPLOY_FAILED", "message": "no module named x"}}
    status = {**mapping(ready, "status"), "activeServiceStatus": {"applicationStatuses": application}}
    assert health({**ready, "status": status}) == ("Degraded", "endpoint is DEPLOY_FAILED: no module named x")


def test_the_operator_answers_what_a_person_asks_in_argo_cd() -> None:
    world = World(1, script=Script(effects={version_of("shop-1"): 0.0}))  # no verdict comes by itself
    loop = {"cooldown": "1m", "minExploredOutcomes": 100, "approval": "Manual"}
    world.declare(a_quick_project().with_field("spec.loop", loop))
    until(world, lambda: "awaitingApproval" in mapping(world.project(), "status"))
    world.cluster.put(act(world.project(), "approve"))
    until(world, lambda: actions(world.deployment() or EMPTY_DEPLOYMENT)["abort"])
    world.cluster.put(act(world.deployment(), "abort"))
    until(world, lambda: health(world.deployment())[0] == "Degraded")
    assert "Aborted" in health(world.deployment())[1]
    world.cluster.put(act(world.deployment(), "retry"))
    until(world, lambda: actions(world.deployment())["promote"])
    world.cluster.put(act(world.deployment(), "promote"))
    until(world, lambda: world.stable_version() == version_of("shop-1"))
    world.cluster.put(act(world.project(), "retrain"))
    until(world, lambda: bool(world.run("shop-2")))
    world.cluster.put(act(world.run("shop-2"), "cancel"))
    until(world, lambda: "Cancelled" in world.reasons(world.run("shop-2")))
