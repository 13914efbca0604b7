"""Test data in the layout of Argo CD's own repository, whose tests read the same files.

`python -m tests.chart.argo_testdata` writes it beside the scripts, and a test says when it is not what comes out today.
Specs, and what our own kinds say, are the controllers' output in a simulated world. The status of RayJobs and
RayServices is that of the simulation's KubeRay: fields and reasons of the real one, but not what it wrote anywhere.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from drivetrain.api.documents import JSON, Document, documents, mapping, text
from drivetrain.api.kinds import DEPLOYMENT, Ref
from drivetrain.api.report import RunResult
from tests.support.argocd import CUSTOMIZATIONS, act, actions, folder, health
from tests.support.operator_world import NAMESPACE, World, a_quick_project
from tests.support.ray_programs import Script, version_of
from tests.support.scenarios import PROJECT, SERVING


@dataclass(frozen=True)
class Case:
    """A resource at a moment, and what Argo CD should make of it."""

    name: str
    status: str
    document: Document
    action: str = ""


def cases() -> Iterator[Case]:
    """Every case; what holds at each moment was reached by the real decisions."""
    yield from _rollout()
    yield from _approval()
    yield from _faults()
    yield from _queue()


def _rollout() -> Iterator[Case]:
    world = World(1, script=Script(effects={version_of("shop-2"): -0.3}))
    world.declare(a_quick_project())
    until(world, lambda: _job(world).get("jobDeploymentStatus") == "Running")
    yield Case("building", "Progressing", world.project(), "retrain")
    yield Case("running", "Progressing", world.run("shop-1"), "cancel")
    yield Case("running", "Progressing", world.ray_jobs()[0])
    until(world, lambda: _says(world.run("shop-1"), "Complete"))
    until(world, lambda: _job(world).get("jobDeploymentStatus") == "Complete")
    yield Case("complete", "Healthy", world.run("shop-1"))
    yield Case("complete", "Healthy", world.ray_jobs()[0])
    until(world, lambda: bool(world.ray_services()) and "conditions" in mapping(world.ray_services()[0], "status"))
    yield Case("ready", "Healthy", world.ray_services()[0])
    until(world, lambda: int(str(mapping(world.deployment(), "status").get("weight", 0))) > 0)
    yield Case("rolling-out", "Progressing", world.deployment(), "promote")
    yield Case("aborted", "Progressing", world.deployment(), "abort")
    yield Case("to-pause", "Progressing", world.deployment(), "pause")
    world.annotate(SERVING, pause="true")
    world.step()
    yield Case("paused", "Suspended", world.deployment(), "resume")
    live = world.cluster.read(SERVING) or {}
    metadata = {key: each for key, each in mapping(live, "metadata").items() if key != "annotations"}
    world.cluster.put({**live, "metadata": metadata})
    until(world, lambda: world.stable_version() == version_of("shop-1"))
    yield Case("serving", "Healthy", world.deployment())
    yield Case("loop-running", "Healthy", world.project())
    world.annotate(PROJECT, retrain="by-hand")
    until(world, lambda: any(each.version == version_of("shop-2") for each in world.deployment_ledger().rejected))
    until(world, lambda: "CandidateRejected" in world.reasons(world.deployment()))
    yield Case("candidate-rejected", "Degraded", world.deployment(), "retry")


def _approval() -> Iterator[Case]:
    world = World(1)
    loop = {"cooldown": "1m", "minExploredOutcomes": 100, "approval": "Manual"}
    world.declare(a_quick_project().with_field("spec.loop", loop))
    until(world, lambda: "awaitingApproval" in mapping(world.project(), "status"))
    yield Case("awaiting-approval", "Suspended", world.project(), "approve")


def _faults() -> Iterator[Case]:
    broken = RunResult(state="Failed", reason="SourceNotFound", message="There is no object.", permanent=True)
    world = World(1, script=Script(results={"shop-1": broken}))
    world.declare(a_quick_project())
    until(world, lambda: _says(world.run("shop-1"), "Failed"))
    until(world, lambda: "SourceNotFound" in world.reasons(world.project()))
    yield Case("failed", "Degraded", world.run("shop-1"))
    yield Case("stalled", "Degraded", world.project())
    world = World(1, script=Script(flaky={"shop-1": 9}))
    world.declare(a_quick_project())
    until(world, lambda: _job(world).get("jobDeploymentStatus") == "Failed")
    yield Case("failed", "Degraded", world.ray_jobs()[0])
    world = World(1)
    world.declare(a_quick_project())
    until(world, lambda: bool(world.ray_services()))
    yield Case("starting", "Progressing", world.cluster.read(Ref(DEPLOYMENT, NAMESPACE, "shop")) or {})
    yield Case("starting", "Progressing", world.ray_services()[0])


def _queue() -> Iterator[Case]:
    world = World(1)
    world.ray.quota = False
    world.declare(a_quick_project().with_field("spec.training.queue", {"name": "pool"}))
    until(world, lambda: bool(world.ray_jobs()) and mapping(world.ray_jobs()[0], "spec").get("suspend") is True)
    world.step()
    yield Case("queued", "Progressing", world.run("shop-1"))
    yield Case("queued", "Suspended", world.ray_jobs()[0])
    run = world.run("shop-1")
    world.cluster.put({**run, "spec": {**mapping(run, "spec"), "suspend": True}})
    until(world, lambda: not world.ray_jobs() and "Suspended" in world.reasons(world.run("shop-1")))
    yield Case("suspended", "Suspended", world.run("shop-1"))


def _says(document: Document, condition: str) -> bool:
    found = documents(document, "status", "conditions")
    return any(text(each, "type") == condition and text(each, "status") == "True" for each in found)


def _job(world: World) -> Document:
    jobs = world.ray_jobs()
    return mapping(jobs[0], "status") if jobs else {}


def until(world: World, holds: Callable[[], bool]) -> None:
    """Let the world go on until it is so."""
    for _ in range(900):
        if holds():
            return
        world.step()
    raise AssertionError("the world does not get there")


def _shown(document: Document) -> Document:
    """Without what is only noise here."""
    metadata = {key: each for key, each in mapping(document, "metadata").items() if key != "managedFields"}
    return {**document, "metadata": metadata}


def generated() -> dict[Path, str]:
    """Return health_test.yaml, action_test.yaml and testdata of each kind, by path."""
    files: dict[Path, Document] = {}
    health_tests: dict[Path, list[JSON]] = {}
    discovery_tests: dict[Path, list[JSON]] = {}
    action_tests: dict[Path, list[JSON]] = {}
    for case in cases():
        where = folder(case.document)
        document = _shown(case.document)
        status, message = health(document)
        assert status == case.status, f"{text(document, 'kind')} {case.name} is {status}: {message}"
        files[where / "testdata" / f"{case.name}.yaml"] = document
        expected: Document = {"status": status, "message": message}
        health_tests.setdefault(where, []).append({"healthStatus": expected, "inputPath": f"testdata/{case.name}.yaml"})
        if not (where / "actions").is_dir():
            continue
        offered: list[JSON] = [{"name": name, "disabled": not can} for name, can in sorted(actions(document).items())]
        files[where / "actions" / "testdata" / f"{case.name}.yaml"] = document
        discovery_tests.setdefault(where, []).append({"inputPath": f"testdata/{case.name}.yaml", "result": offered})
        if case.action:
            assert actions(document)[case.action], f"{case.action} is not offered for {case.name}"
            output = f"testdata/{case.name}-{case.action}.yaml"
            files[where / "actions" / output] = act(document, case.action)
            action_tests.setdefault(where, []).append(
                {
                    "action": case.action,
                    "inputPath": f"testdata/{case.name}.yaml",
                    "expectedOutputPath": output,
                }
            )
    for where, tests in health_tests.items():
        files[where / "health_test.yaml"] = {"tests": tests}
        if where in discovery_tests:
            content: Document = {"discoveryTests": discovery_tests[where], "actionTests": action_tests[where]}
            files[where / "actions" / "action_test.yaml"] = content
    return {file: yaml.safe_dump(document, sort_keys=False, width=120) for file, document in files.items()}


def written() -> dict[Path, str]:
    """Return what lies beside the scripts."""
    return {file: file.read_text("utf-8") for file in CUSTOMIZATIONS.rglob("*.yaml")}


def main() -> None:
    """Write the files, and remove those of cases that are no more."""
    wanted = generated()
    for file in written().keys() - wanted.keys():
        file.unlink()
    for file, content in wanted.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, "utf-8")


if __name__ == "__main__":
    main()
