"""Stories that a world lives through: what people do when, in an order that no fault changes."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from drivetrain.api.documents import Document, name_of, text
from drivetrain.api.kinds import DEPLOYMENT, DRIVETRAIN_PROJECT, POD, TRAINING_RUN, Ref
from drivetrain.api.report import RunResult
from tests.support.operator_world import NAMESPACE, Faults, World, a_quick_project, final
from tests.support.ray_programs import Script, version_of

PROJECT = Ref(DRIVETRAIN_PROJECT, NAMESPACE, "shop")
SERVING = Ref(DEPLOYMENT, NAMESPACE, "shop")

WORKERS = {"ray.io/node-type": "worker", "drivetrain.dev/owner-kind": DEPLOYMENT.kind}

Story = Callable[[World], Iterator[bool]]
"""Yields whether it may go on: False waits a tick."""


def full_circle(world: World) -> Iterator[bool]:
    """A first version wins, a hand-made one is rejected, a drift is answered, then levers change without training."""
    world.declare(a_quick_project())
    while world.stable_version() != version_of("shop-1"):
        yield False
    world.annotate(PROJECT, retrain="by-hand")
    while not any(each.version == version_of("shop-2") for each in world.deployment_ledger().rejected):
        yield False
    world.ray.script.drifts_after[version_of("shop-1")] = 0
    while world.stable_version() != version_of("shop-3"):
        yield False
    levers = a_quick_project().with_lever("price", maximum="2.04").document()["spec"]["levers"]
    before = world.deployment_ledger().rollouts_started
    world.edit(PROJECT, levers=levers)
    while world.deployment_ledger().rollouts_started == before or world.deployment_ledger().candidate is not None:
        yield False
    yield True


def queued(world: World) -> Iterator[bool]:
    """A queued run is evicted twice, suspended once, crashes once, and ends approved."""
    project = a_quick_project().without_serving().with_field("spec.training.queue", {"name": "pool"})
    world.ray.quota = False
    world.declare(project.with_field("spec.training.scaling", {"workers": 1}))
    run = Ref(TRAINING_RUN, NAMESPACE, "shop-1")
    while world.run_ledger("shop-1").attempt == 0:
        yield False
    world.ray.quota = True
    for _ in range(2):
        while "Running" not in {text(job, "status", "jobDeploymentStatus") for job in world.ray_jobs()}:
            yield False
        world.ray.evict()
        yield False
    while world.run_ledger("shop-1").incarnation == 0:
        yield False
    world.edit(run, suspend=True)
    while world.run_ledger("shop-1").attempt_started_at is not None or world.ray_jobs():
        yield False
    world.edit(run, suspend=False)
    while not world.run_ledger("shop-1").finished:
        yield False
    yield True


def stranded(world: World) -> Iterator[bool]:
    """A run does not reach its store twice, waits a minute and then five, and ends approved."""
    world.declare(a_quick_project().without_serving().with_field("spec.training.attempts", 5))
    while not world.run_ledger("shop-1").finished:
        yield False
    assert world.run_ledger("shop-1").finished == "Approved"
    yield True


def with_gpus(world: World) -> Iterator[bool]:
    """A run with GPUs prepares without them, waits for them, is evicted in both parts, crashes once, ends approved."""
    project = a_quick_project().without_serving().with_field("spec.training.queue", {"name": "gpu-pool"})
    resources = {"cpu": "1", "memory": "2Gi", "gpu": 1}
    world.declare(project.with_field("spec.training.scaling", {"workers": 2, "resourcesPerWorker": resources}))
    for part in ("p", "t"):
        while not any(_is_running(job, part) for job in world.ray_jobs()):
            yield False
        world.ray.evict()
        yield False
    while not world.run_ledger("shop-1").finished:
        yield False
    yield True


def _is_running(job: Document, part: str) -> bool:
    return name_of(job).endswith(f"-{part}") and text(job, "status", "jobDeploymentStatus") == "Running"


def replaced_cluster(world: World) -> Iterator[bool]:
    """The serving cluster is replaced while a version serves, grows, shrinks; a missing model is refused beside it."""
    world.declare(a_quick_project())
    while world.stable_version() != version_of("shop-1"):
        yield False
    serving = {"resources": {"cpu": "2", "memory": "3Gi"}}
    world.edit(PROJECT, serving=a_quick_project().with_serving(**serving).document()["spec"]["serving"])
    before = world.deployment_ledger().revision
    while world.deployment_ledger().revision == before or len(world.ray_services()) != 1:
        yield False
    for replicas in (3, 1):
        scaled = a_quick_project().with_serving(**serving, replicas=replicas).document()["spec"]["serving"]
        world.edit(PROJECT, serving=scaled)
        while len(world.cluster.find(POD, NAMESPACE, WORKERS)) != replicas:
            yield False
    world.ray.script.missing_models.add(version_of("shop-2"))
    world.annotate(PROJECT, retrain="again")
    while not any(each.version == version_of("shop-2") for each in world.deployment_ledger().rejected):
        yield False
    yield True


def second_thoughts(world: World) -> Iterator[bool]:
    """A Secret and a source are missing at first; a rejected version gets its second chance when the market turns."""
    world.ray.missing_secrets = True
    world.declare(a_quick_project())
    while "SecretMissing" not in world.reasons(world.run("shop-1")):
        yield False
    world.ray.missing_secrets = False
    while world.run_ledger("shop-1").finished != "Failed":
        yield False
    world.annotate(PROJECT, retrain="with the source")
    while world.stable_version() != version_of("shop-2"):
        yield False
    world.annotate(PROJECT, retrain="once more")
    while not any(each.version == version_of("shop-3") for each in world.deployment_ledger().rejected):
        yield False
    while "Rejected" not in {run.verdict for run in world.project_ledger().runs}:
        yield False
    world.ray.script.effects[version_of("shop-3")] = 0.5
    world.annotate(SERVING, retry=world.deployment_ledger().rejected[0].hash)
    while world.stable_version() != version_of("shop-3"):
        yield False
    yield True


def shadowed(world: World) -> Iterator[bool]:
    """A first version shadows today's policy and wins; the next fails on real rows and never gets any traffic."""
    rollout = {"steps": [{"weight": 50}], "shadow": {"minDecisions": 1000}, "analysis": {"minOutcomes": 300}}
    world.declare(a_quick_project().with_serving(rollout=rollout))
    while world.stable_version() != version_of("shop-1"):
        yield False
    assert world.ray.site.store.shadowed, "it got traffic without a shadow"
    world.annotate(PROJECT, retrain="by-hand")
    while not any(each.version == version_of("shop-2") for each in world.deployment_ledger().rejected):
        yield False
    assert world.deployment_ledger().rejected[0].reason == "ShadowFailed"
    assert world.ray.site.store.weighted == {version_of("shop-1")}
    yield True


STORIES: dict[str, tuple[Story, Callable[[], Script]]] = {
    "full circle": (
        full_circle,
        lambda: Script(effects={version_of("shop-2"): -0.3, version_of("shop-3"): 0.3}),
    ),
    "queued": (queued, lambda: Script(flaky={"shop-1": 1}, stages=8)),
    "stranded": (stranded, lambda: Script(stranded={"shop-1": 2})),
    "with GPUs": (with_gpus, lambda: Script(flaky={"shop-1": 1}, stages=8)),
    "replaced cluster": (replaced_cluster, Script),
    "shadowed": (shadowed, lambda: Script(broken_models={version_of("shop-2")})),
    "second thoughts": (
        second_thoughts,
        lambda: Script(
            effects={version_of("shop-3"): -0.3},
            results={"shop-1": RunResult(state="Failed", reason="SourceNotFound", message="empty", permanent=True)},
        ),
    ),
}


@dataclass(frozen=True)
class Schedule:
    """Which trouble a world meets; printed when it breaks a promise."""

    seed: int = 1
    crash: tuple[int, str] | None = None
    rate: float = 0.0
    stale: float = 0.0
    mistreat: float = 0.0
    wipe: float = 0.0
    evict: float = 0.0
    until: int = 60


def live_through(story: str, schedule: Schedule) -> World:
    """Live through a story under a schedule, settle, and return the world.

    Raises:
        AssertionError: a promise was broken; the message names story, schedule and what was injected.
    """
    told, script = STORIES[story]
    faults = Faults(random.Random(schedule.seed), crash=schedule.crash, rate=schedule.rate, stale=schedule.stale)
    world = World(schedule.seed, faults=faults, script=script())
    world.mistreat = schedule.mistreat
    steps = told(world)
    try:
        next(steps)
        ended = False
        for _ in range(1500):
            if world.tick >= schedule.until:
                faults.active, world.mistreat = False, 0.0
            elif world.rng.random() < schedule.wipe:
                world.wipe_status(world.rng.choice((PROJECT, SERVING, Ref(TRAINING_RUN, NAMESPACE, "shop-1"))))
            elif world.rng.random() < schedule.evict:
                world.ray.evict()
            world.step()
            if next(steps, True):
                ended = True
                break
        assert ended, f"the story did not end; last writes: {world.last_writes()}"
        while world.tick < schedule.until:
            world.step()
        faults.active, world.mistreat = False, 0.0
        world.settle()
        phases = {text(job, "status", "jobDeploymentStatus") for job in world.ray_jobs()}
        assert phases <= {"Complete", "Failed"}, f"a RayJob is left that holds a cluster: {phases}"
    except AssertionError as error:
        injected = "\n  ".join(faults.log[-40:])
        raise AssertionError(f"{story}, {schedule}, tick {world.tick}: {error}\n  {injected}") from error
    return world


def differences(found: object, wanted: object, path: str = "") -> list[str]:
    """Where two final worlds differ, one line each."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        return [
            line
            for key in sorted(found.keys() | wanted.keys())
            for line in differences(found.get(key), wanted.get(key), f"{path}/{key}")
        ]
    return [] if found == wanted else [f"{path}: {str(found)[:400]} instead of {str(wanted)[:400]}"]


__all__ = ["PROJECT", "SERVING", "STORIES", "Schedule", "differences", "final", "live_through"]
