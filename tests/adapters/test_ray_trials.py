"""Fits on a real Ray: the same outcomes as in this process, on actors that are reused."""

import os
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
import ray

from drivetrain.pipelines.bench import material
from drivetrain.pipelines.ensembles import Combination, Single
from drivetrain.pipelines.features import fit_features
from drivetrain.pipelines.modelling import build
from drivetrain.pipelines.ray_trials import RayTrials, ray_trials
from drivetrain.pipelines.work import LocalTrials, Material, Task
from tests.support.training_rows import DirectStages, MemoryLog, shop_rows, shop_spec

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def rows() -> Material:
    shop, spec = shop_rows(400), shop_spec()
    plan = fit_features(shop.frame.filter(pl.Series(shop.train)), spec.data, spec.levers)
    return material(shop, spec, plan)


LINEAR = Single("linear", "LogisticRegression")
TREES = Single("trees", "LightGBM", (("n_estimators", 5),))


@pytest.mark.usefixtures("cluster")
def test_actors_give_the_outcomes_of_this_process_and_are_reused(rows: Material) -> None:
    tasks = [
        Task(recipe, part, 1)
        for part in ("train", "first")
        for recipe in (LINEAR, TREES, Combination("Stacking", (LINEAR, TREES)))
    ]
    local = LocalTrials()
    local.load(rows)
    expected = dict(local.run(tasks))
    trials = RayTrials(2)
    trials.load(rows)
    found = dict(trials.run(tasks)) | dict(trials.run(tasks[:1]))
    trials.close()
    assert sorted(found) == list(range(len(tasks)))
    for index, task in enumerate(tasks):
        assert found[index].metrics == expected[index].metrics
        own, other = found[index].model, expected[index].model
        assert (own is None) == (other is None) == (task.rows == "train")
        if own is not None and other is not None:
            plain, scaled = rows.sample.plain, rows.sample.scaled
            assert (own.scores(plain, scaled) == other.scores(plain, scaled)).all()


@pytest.mark.usefixtures("cluster")
def test_a_fit_that_a_library_refuses_comes_back_as_a_failure_and_the_actor_lives_on(rows: Material) -> None:
    with ray_trials(1) as trials:
        trials.load(rows)
        broken = Task(Single("trees", "LightGBM", (("num_leaves", -3),)), "train", 1)
        outcomes = dict(trials.run([broken, Task(LINEAR, "train", 1)]))
    assert "num_leaves" in outcomes[0].failure
    assert not outcomes[1].failure


@pytest.mark.usefixtures("cluster")
def test_a_run_on_actors_publishes_the_same_bytes_as_one_in_this_process(tmp_path: Path) -> None:
    candidates = [
        {"name": "linear", "estimator": "LogisticRegression"},
        {"name": "trees", "estimator": "LightGBM", "parameters": {"n_estimators": 5}},
    ]
    spec = shop_spec(candidates=candidates, ensemble={"methods": ["Stacking"]})
    digests = []
    with ray_trials() as remote:
        for name, runner in (("here", LocalTrials()), ("there", remote)):
            folder = tmp_path / name / "model"
            folder.mkdir(parents=True)
            stages = DirectStages(tmp_path / name / "stages")
            model = build(shop_rows(400), spec, runner, MemoryLog(), stages, champion=None, folder=folder)
            digests.append(model.contract.digest)
    assert digests[0] == digests[1]
