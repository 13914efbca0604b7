"""Fits as trials of Ray Tune on a real Ray: the same outcomes as in this process, on actors that are reused."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import polars as pl
import psutil
import pytest
import ray
from ray.util.placement_group import placement_group, remove_placement_group

from drivetrain.api.errors import ReportedError
from drivetrain.pipelines.bench import material
from drivetrain.pipelines.ensembles import Combination, Single
from drivetrain.pipelines.features import fit_features
from drivetrain.pipelines.modelling import build
from drivetrain.pipelines.ray_trials import RayTrials, ray_trials
from drivetrain.pipelines.work import LocalTrials, Material, Task
from tests.support.training_rows import DirectStages, MemoryLog, shop_rows, shop_spec

pytestmark = pytest.mark.ray

DEADLINE = 60.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def rows() -> Material:
    shop, spec = shop_rows(400), shop_spec()
    plan = fit_features(shop.frame.filter(pl.Series(shop.train)), spec.data, spec.levers)
    return material(shop, spec, plan)


@dataclass(frozen=True, slots=True)
class Shared:
    """Trials on two of the cluster's four CPUs, which no test ends."""

    trials: RayTrials
    actors: set[int]


@pytest.fixture(scope="module")
def shared(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    with ray_trials(tmp_path_factory.mktemp("tune"), 2) as trials:
        assert actors() == set(), "nothing starts before it is needed"
        trials.start()
        until(lambda: len(actors()) == 2, "two actors run")
        yield Shared(trials, actors())


@pytest.fixture
def own(shared: Shared, tmp_path: Path, rows: Material) -> Iterator[RayTrials]:
    """Trials that the test may end, on the other two CPUs."""
    with ray_trials(tmp_path, 2) as trials:
        trials.load(rows)
        until(lambda: len(actors()) == 4, "four actors run")
        yield trials
    until(lambda: actors() == shared.actors, "no other actor is left")


LINEAR = Single("linear", "LogisticRegression")
TREES = Single("trees", "LightGBM", (("n_estimators", 5),))
QUICK = Task(LINEAR, "train", 1)
ENDLESS = Task(Single("forest", "RandomForest", (("n_estimators", 1_000_000),)), "train", 1)


def actors(method: str = "") -> set[int]:
    """Process ids of the trial actors; with a method, of those that are at it."""
    found = set()
    for process in psutil.Process().children(recursive=True):
        try:
            if "".join(process.cmdline()[:1]).startswith(f"ray::Fit{method}"):
                found.add(process.pid)
        except psutil.NoSuchProcess:
            continue
    return found


def until(true: Callable[[], bool], what: str) -> None:
    end = monotonic() + DEADLINE
    while not true():
        assert monotonic() < end, f"not within {DEADLINE:.0f} s: {what}"
        sleep(0.05)


@contextmanager
def held_cpus(count: int) -> Iterator[None]:
    """Someone else's CPUs, of the two that the shared trials leave."""
    cluster: Any = ray  # its functions carry no annotations
    until(lambda: cluster.available_resources().get("CPU") == 2.0, "earlier tests have given their CPUs back")
    group = placement_group([{"CPU": count}])
    ray.get(group.ready())
    try:
        yield
    finally:
        remove_placement_group(group)


def test_trials_give_the_outcomes_of_this_process(shared: Shared, rows: Material) -> None:
    tasks = [
        Task(recipe, part, 1)
        for part in ("train", "first")
        for recipe in (LINEAR, TREES, Combination("Stacking", (LINEAR, TREES)))
    ]
    local = LocalTrials()
    local.load(rows)
    expected = dict(local.run(tasks))
    shared.trials.load(rows)
    found = dict(shared.trials.run(tasks))
    assert sorted(found) == list(range(len(tasks)))
    for index, task in enumerate(tasks):
        assert found[index].metrics == expected[index].metrics
        own, other = found[index].model, expected[index].model
        assert (own is None) == (other is None) == (task.rows == "train")
        if own is not None and other is not None:
            plain, scaled = rows.sample.plain, rows.sample.scaled
            assert (own.scores(plain, scaled) == other.scores(plain, scaled)).all()


def test_a_run_on_actors_publishes_the_same_bytes_as_one_in_this_process(shared: Shared, tmp_path: Path) -> None:
    candidates = [
        {"name": "linear", "estimator": "LogisticRegression"},
        {"name": "trees", "estimator": "LightGBM", "parameters": {"n_estimators": 5}},
    ]
    spec = shop_spec(candidates=candidates, ensemble={"methods": ["Stacking"]})
    digests = []
    for name, runner in (("here", LocalTrials()), ("there", shared.trials)):
        folder = tmp_path / name / "model"
        folder.mkdir(parents=True)
        stages = DirectStages(tmp_path / name / "stages")
        model = build(shop_rows(400), spec, runner, MemoryLog(), stages, champion=None, folder=folder)
        digests.append(model.contract.digest)
    assert digests[0] == digests[1]


def test_the_same_actors_do_the_fits_of_all_stages_and_wait_between_them(shared: Shared, rows: Material) -> None:
    shared.trials.load(rows)
    for _ in range(3):
        assert len(dict(shared.trials.run([QUICK] * 4))) == 4
        assert len(dict(shared.trials.run([QUICK]))) == 1
        assert actors() == shared.actors


def test_a_fit_that_a_library_refuses_comes_back_as_a_failure_and_its_actor_lives_on(
    shared: Shared, rows: Material
) -> None:
    shared.trials.load(rows)
    broken = Task(Single("trees", "LightGBM", (("num_leaves", -3),)), "train", 1)
    outcomes = dict(shared.trials.run([broken, QUICK]))
    assert "num_leaves" in outcomes[0].failure
    assert not outcomes[1].failure
    assert actors() == shared.actors


def test_other_rows_replace_those_on_the_actors(shared: Shared, rows: Material) -> None:
    shop, spec = shop_rows(600, seed=2), shop_spec()
    other = material(shop, spec, fit_features(shop.frame.filter(pl.Series(shop.train)), spec.data, spec.levers))
    found = []
    for held in (rows, other):
        local = LocalTrials()
        for trials in (shared.trials, local):
            trials.load(held)
            found += [outcome.metrics for _, outcome in trials.run([QUICK])]
    assert found[0] == found[1] != found[2] == found[3]


def test_an_actor_that_is_killed_at_work_is_reported_at_once_and_the_others_end(own: RayTrials) -> None:
    answers = own.run([QUICK, ENDLESS, ENDLESS])
    next(answers)
    until(lambda: len(actors(".train")) == 2, "both fit")
    os.kill(min(actors(".train")), signal.SIGKILL)
    with pytest.raises(ReportedError) as lost:
        next(answers)
    assert lost.value.reason == "WorkerLost"


def test_an_actor_that_was_killed_while_it_waited_is_reported_when_it_is_needed(own: RayTrials, shared: Shared) -> None:
    for pid in actors() - shared.actors:
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(ReportedError) as lost:
        list(own.run([QUICK]))
    assert lost.value.reason == "WorkerLost"
    with pytest.raises(ReportedError):  # nor does it wait for ever afterwards
        list(own.run([QUICK]))


def test_a_fit_that_fails_in_an_unknown_way_is_reported(own: RayTrials) -> None:
    with pytest.raises(ReportedError, match="no recipe") as failed:
        list(own.run([Task("no recipe", "train", 1)]))  # type: ignore[arg-type]  # that is the point
    assert failed.value.reason == "WorkerFailed"


def test_closing_ends_the_actors_that_are_still_at_work(own: RayTrials, shared: Shared) -> None:
    answers = own.run([QUICK, ENDLESS])
    next(answers)
    until(lambda: bool(actors(".train")), "one fits")
    own.close()
    until(lambda: actors() == shared.actors, "its actors are gone")


def test_trials_go_on_with_the_cpus_that_there_are(shared: Shared, tmp_path: Path, rows: Material) -> None:
    with held_cpus(1), ray_trials(tmp_path, 2) as trials:
        trials.load(rows)
        assert len(dict(trials.run([QUICK] * 3))) == 3
        assert len(actors() - shared.actors) == 1


@pytest.mark.usefixtures("shared")
def test_a_cluster_without_a_free_cpu_is_reported(tmp_path: Path, rows: Material) -> None:
    trials = RayTrials(tmp_path, 2, deadline=2.0)
    with held_cpus(2):
        trials.load(rows)
        with pytest.raises(ReportedError) as missing:
            list(trials.run([QUICK]))
        trials.close()
    assert missing.value.reason == "WorkersMissing"
