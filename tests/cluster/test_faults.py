"""Every fault of faults.py, suffered once by a run or an endpoint of the example on an installed release."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import pytest

from drivetrain.api.documents import Document, integer, text, uid_of, value
from drivetrain.api.dossier import Dossier
from drivetrain.api.kinds import CLUSTER_QUEUE, POD, RAY_CLUSTER, RAY_JOB, RAY_SERVICE, TRAINING_RUN, WORKLOAD
from drivetrain.api.layout import DECISIONS, OUTCOMES
from drivetrain.api.layout import attempt as attempt_key
from drivetrain.api.names import OWNER_UID_LABEL
from drivetrain.controller.core.run_progress import READY_WITHIN
from tests.cluster import faults, release
from tests.cluster.clusters import condition
from tests.cluster.faults import Scene, reasons, suffer
from tests.cluster.images import Images
from tests.cluster.kubectl import Kubectl, delete_namespaces, tell, until
from tests.cluster.outside import Caller, Steady, Store
from tests.cluster.queues import cluster_queue, kueue, local_queue
from tests.cluster.searches import slow_search
from tests.cluster.teams import SMALL, Team, enabled

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(900)]

POOL = "faults"
BEGUN, TRAINED, SERVED = 240, 420, 420
GPU_WORKER = {"workers": 1, "resourcesPerWorker": {"cpu": "100m", "memory": "2Gi", "gpu": 1}}
LONG = slow_search(5)
"""A search that can be disturbed after its first trial and before its last."""


@dataclass(frozen=True, slots=True)
class Installed:
    """A release, and what makes teams for it."""

    system: Kubectl
    team: Callable[[str], Team]


@pytest.fixture(scope="module")
def installed(cluster: Kubectl, images: Images) -> Iterator[Installed]:
    """A release with a pool of GPUs, and the teams that are made for it."""
    teams: list[Kubectl] = []

    def team(name: str) -> Team:
        cluster.apply(enabled(name))
        teams.append(cluster.within(name))
        made = Team(teams[-1])
        made.prepare()
        made.kubectl.apply(local_queue("pool", POOL))
        return made

    quotas = {"cpu": "20", "memory": "64Gi", faults.GPU: "4"}
    with release.installed(cluster, images) as system:
        cluster.apply(
            kueue("ResourceFlavor", POOL),
            cluster_queue(POOL, quotas, flavor=POOL, namespaceSelector={}),
        )
        try:
            yield Installed(system, team)
        finally:
            delete_namespaces(cluster, [each.namespace for each in teams])
            for kind in ("clusterqueue", "resourceflavor"):
                cluster("delete", kind, POOL, "--ignore-not-found", "--wait=false")


@pytest.fixture(scope="module")
def trainers(installed: Installed) -> Team:
    """A team whose runs are disturbed, one project each."""
    return installed.team("faults-of-runs")


@pytest.fixture(scope="module")
def served(installed: Installed) -> Scene:
    """A project whose first version is at the first step of its rollout, and gets no traffic but a test's own."""
    team = installed.team("faults-of-endpoints")
    project = team.project()
    project["spec"]["training"] |= {"cluster": SMALL}
    team.kubectl.apply(project)
    scene = Scene(team.kubectl, installed.system, "renewals", pool=POOL)

    until(lambda: faults.rolls_out(scene), TRAINED + SERVED, "version 1 is at the first step of its rollout")
    return scene


@pytest.fixture(autouse=True)
def told_on_failure(installed: Installed, request: pytest.FixtureRequest) -> Iterator[None]:
    """What a person would look at first, when a test fails."""
    failed = request.session.testsfailed
    yield
    if request.session.testsfailed > failed:
        details = ("get", "dtr,dtd", "--all-namespaces", "-o", "yaml")
        tell(installed.system, details, ("logs", "deploy/drivetrain", "--all-pods", "--tail=120"), everywhere=True)


def a_training(installed: Installed, team: Team, name: str, **training: Any) -> Scene:
    """The example without serving, applied as a project of its own; its first run."""
    project = team.project()
    project["metadata"]["name"] = name
    spec = project["spec"]
    del spec["serving"]
    spec["data"]["store"]["uri"] = f"s3://{team.name}/{name}"
    spec["training"] |= {"cluster": SMALL, **training}
    spec["training"]["tuning"] |= {"parallelTrials": 1}
    team.kubectl.apply(project)
    scene = Scene(team.kubectl, installed.system, name, f"{name}-1", POOL)
    until(lambda: scene.training, 60, "the run is there")
    return scene


def has_tried(scene: Scene) -> bool:
    """Whether a trial is finished, so that there is something to repeat."""
    found = scene.training
    assert not faults.is_trained(scene, ""), "the run is over before anything could be done to it"
    return integer(found, "status", "progress", "trialsDone") > 0


def trained(scene: Scene) -> Document:
    """The run, once it has a version."""

    def ended() -> Document | None:
        found = scene.training
        assert not condition(found, "Failed"), text(found, "status", "why")
        return found if faults.is_trained(scene, "") else None

    return until(ended, TRAINED, "the run is trained")


@pytest.fixture
def caller(served: Scene) -> Iterator[Callable[[], Caller]]:
    """Makes callers of the endpoint, each over a connection of its own."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(Caller.of(Team(served.team), served.project))


def test_a_run_bears_a_minute_without_mlflow_and_the_death_of_its_operator(
    installed: Installed, trainers: Team
) -> None:
    scene = a_training(installed, trainers, "outlived")
    until(lambda: "Running" in reasons(scene.training), BEGUN, "the run is under way")
    operator: list[faults.Suffered] = []
    tried: set[int] = set()

    def meanwhile() -> None:
        if not operator:
            operator.append(suffer(faults.OPERATOR_KILLED, scene))
        tried.add(integer(scene.training, "status", "progress", "trialsDone"))
        assert not faults.is_trained(scene, ""), "a version cannot be registered without MLflow"

    mlflow = suffer(faults.MLFLOW_AWAY, scene, meanwhile)
    told("operator killed in training", operator[0])
    told("MLflow away from a run", mlflow)
    run = trained(scene)
    assert max(tried) > 0, "the line goes on without its record"
    assert integer(run, "status", "attempt") == 1
    assert text(run, "status", "mlflowRun")
    assert text(run, "status", "modelVersion") == "1"


def test_a_run_whose_ray_head_is_killed_goes_on_in_its_next_attempt_without_repeating_anything(
    installed: Installed, trainers: Team
) -> None:
    scene = a_training(installed, trainers, "restarted", **LONG)
    until(lambda: has_tried(scene), BEGUN + TRAINED, "a trial is finished")
    told("Ray head killed in training", suffer(faults.HEAD_KILLED_IN_TRAINING, scene))
    goes_on_where_it_was(scene)


def test_a_run_whose_store_is_away_for_a_minute_needs_only_one_more_attempt(
    installed: Installed, trainers: Team
) -> None:
    scene = a_training(installed, trainers, "stranded", **LONG)
    until(lambda: has_tried(scene), BEGUN + TRAINED, "a trial is finished")
    told("S3 away from a run", suffer(faults.STORE_AWAY_FROM_RUN, scene))
    goes_on_where_it_was(scene)
    assert integer(scene.training, "status", "attempt") == 2


def goes_on_where_it_was(scene: Scene) -> None:
    """The run ended well in a later attempt, which took over what the first had finished."""
    run = scene.training
    last = integer(run, "status", "attempt")
    assert last > 1
    with ExitStack() as stack:
        store = stack.enter_context(Store.of(Team(scene.team), scene.project))

        def kept() -> Dossier | None:
            found = store.below(f"{attempt_key(uid_of(run), last)}/dossier/")
            return Dossier.model_validate_json(store.get(found[0])) if found else None

        dossier = until(kept, 90, "the last attempt's dossier is kept")
        assert dossier.ended == "Succeeded"
        assert "Features reused" in dossier.log, dossier.log
        attempts = [store.below(f"{attempt_key(uid_of(run), number)}/trials/") for number in range(1, last + 1)]
        names = [key.rpartition("/")[2] for keys in attempts for key in keys]
    assert attempts[0], "the first attempt had finished a trial"
    assert len(names) == len(set(names)), "a trial was repeated"
    assert integer(run, "status", "progress", "trialsDone") == len(names)


def test_a_run_waits_while_no_node_has_gpus_and_while_its_pool_is_drained(installed: Installed, trainers: Team) -> None:
    scene = a_training(installed, trainers, "evicted", scaling=GPU_WORKER)
    prepared = replace(faults.NODES_WITHOUT_GPUS, shown_within=BEGUN + TRAINED)
    told("nodes without GPUs", suffer(prepared, scene))
    told("pool drained", suffer(faults.GPUS_TAKEN_AWAY, scene))
    run = trained(scene)
    assert integer(run, "status", "attempt") == 1, "an eviction uses up no attempt"
    assert integer(run, "status", "incarnation") == 3, "that which prepared, that which was evicted, and this"
    charged = value(run, "status", "gpuSeconds")
    assert isinstance(charged, int | float)
    assert charged > 0


def test_a_run_that_never_gets_its_gpus_names_them_when_its_deadline_is_over(
    installed: Installed, trainers: Team
) -> None:
    scene = a_training(installed, trainers, "starved", scaling=GPU_WORKER)

    def ends() -> None:
        scene.team.patch(TRAINING_RUN, scene.run, {"spec": {"deadline": "10s"}})
        until(lambda: condition(scene.training, "Failed"), 60, "the deadline is over")

    failed = fails_without_gpus(scene, ends)
    assert failed["reason"] == "DeadlineExceeded"


@pytest.mark.timeout(1800)
def test_an_attempt_that_never_gets_its_gpus_names_them_when_it_should_have_run(
    installed: Installed, trainers: Team
) -> None:
    scene = a_training(installed, trainers, "patient", scaling=GPU_WORKER, attempts=1)
    fails_by = READY_WITHIN.total_seconds() + 60

    failed = fails_without_gpus(
        scene, lambda: until(lambda: condition(scene.training, "Failed"), fails_by, "its only attempt has failed")
    )
    assert failed["reason"] == "AttemptsExhausted"
    assert f"the job did not run {READY_WITHIN} after it got its resources" in failed["message"]


def fails_without_gpus(scene: Scene, ends: Callable[[], object]) -> Mapping[str, Any]:
    """The condition of a run that nodes without GPUs keep waiting until it `ends`; it names them and leaves no Pod."""
    fault = replace(
        faults.NODES_WITHOUT_GPUS,
        shown_within=BEGUN + TRAINED,
        over=lambda scene, had: not scene.team.items(POD, {OWNER_UID_LABEL: uid_of(scene.training)}),
        kept=lambda scene: uid_of(scene.training),
    )
    suffer(fault, scene, ends)
    failed = condition(scene.training, "Stalled")
    assert f"Insufficient {faults.GPU}" in failed["message"]
    return failed


def test_an_endpoint_comes_back_with_its_rollout_after_its_ray_head_was_killed(
    served: Scene, caller: Callable[[], Caller]
) -> None:
    with Steady(Team(served.team), served.project) as steady:
        until(lambda: steady.answers, 60, "somebody asks")
        told("Ray head killed in serving", suffer(faults.HEAD_KILLED_IN_SERVING, served))
        so_far = steady.answers
        until(lambda: steady.answers > so_far, 60, "who asks is answered again")
    sys.stderr.write(f"without an answer for {steady.longest_gap:.0f} s\n")
    calls = caller()
    calls.decide(10)
    calls.report()
    assert calls.asked == [200]
    assert len(calls.reported) == 10


def test_an_endpoint_without_its_store_decides_on_and_loses_no_outcome(
    served: Scene, caller: Callable[[], Caller]
) -> None:
    calls = caller()
    calls.decide(10)
    calls.report()
    assert len(calls.reported) == 10

    def meanwhile() -> None:
        calls.decide(5)
        calls.report()

    told("S3 away from an endpoint", suffer(faults.STORE_AWAY_FROM_ENDPOINT, served, meanwhile))
    assert len(calls.asked) > 3
    assert set(calls.asked) == {200}
    assert calls.refusals == {"StoreUnavailable"}

    def acknowledged() -> bool:
        calls.report()
        return not calls.waiting

    until(acknowledged, 60, "what was refused is acknowledged when it is reported again")
    assert sorted(calls.reported) == sorted(calls.decided)
    with ExitStack() as stack:
        store = stack.enter_context(Store.of(Team(served.team), served.project))
        until(lambda: set(calls.decided) <= store.decisions(DECISIONS), 60, "every decision is on the store")
        assert set(calls.reported) <= store.decisions(OUTCOMES)


def test_a_deleted_namespace_ends_while_it_trains_and_serves(installed: Installed) -> None:
    team = installed.team("faults-of-leaving")
    project = team.project()
    project["spec"]["training"] |= {"cluster": SMALL}
    team.kubectl.apply(project)
    scene = Scene(team.kubectl, installed.system, "renewals", "renewals-1", POOL)
    until(lambda: "Running" in reasons(scene.training), BEGUN, "the run is under way")
    assert scene.team.items(RAY_SERVICE)
    told("namespace deleted", suffer(faults.NAMESPACE_DELETED, scene))
    for kind in (RAY_JOB, RAY_SERVICE, RAY_CLUSTER, WORKLOAD, POD):
        assert not scene.team.items(kind)
    until(lambda: not holds_quota(scene), 30, "its quota is free")


def holds_quota(scene: Scene) -> bool:
    pool = scene.system.get(CLUSTER_QUEUE, scene.pool) or {}
    return integer(pool, "status", "reservingWorkloads") > 0


def told(what: str, took: faults.Suffered) -> None:
    """For the table of durations in the docs."""
    sys.stderr.write(f"{what}: seen after {took.shown:.0f} s, over after {took.over:.0f} s\n")
