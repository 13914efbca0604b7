"""Killing what runs the platform delays a project and does not break it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import urllib3
import yaml

from drivetrain.api.documents import Document, integer, text
from drivetrain.api.errors import DrivetrainError
from drivetrain.api.kinds import DEPLOYMENT, DRIVETRAIN_PROJECT, TRAINING_RUN
from drivetrain.api.v1alpha1.deployment import Deployment
from drivetrain.local.environment import down, status
from drivetrain.local.statedir import StateDir
from examples.renewals.market import history
from examples.renewals.traffic import Renewals
from tests.embedded.conftest import Embedded, condition_in_force, until
from tests.embedded.killing import Kill, Killer, kill, rolls_out, trains

ROOT = Path(__file__).parents[2]
SEED = 4
"""Draws the moments of the kills, and which program of Ray's head dies."""
BATCH = 100
"""Small, so that a step of the rollout is seen before it is over."""
DEMO_SECONDS = 1_200.0


@pytest.fixture
def here(embedded: Embedded) -> Iterator[Embedded]:
    """A namespace in which a run or a rollout is disturbed; empty afterwards."""
    found = embedded.within("faults")
    yield found
    for name in ("outlived", "restarted", "again"):
        if found.get(DRIVETRAIN_PROJECT, name):
            found.delete(DRIVETRAIN_PROJECT, name)
    until(lambda: not found.managed(), 120, "everything of the project is gone")


@pytest.mark.parametrize(
    ("name", "in_training", "in_rollout"),
    [
        pytest.param(
            "outlived",
            ("operator", "agent", "mlflow"),
            ("operator", "agent", "replica"),
            marks=pytest.mark.embedded,
            id="operator-agent-mlflow-replica",
        ),
        pytest.param("restarted", (), ("ray",), marks=pytest.mark.nightly, id="ray"),
    ],
)
@pytest.mark.timeout(600)  # trains, serves and waits for a verdict, while components start again on two busy cores
def test_a_run_and_a_rollout_go_on_though_what_runs_them_is_killed(
    here: Embedded, tmp_path: Path, name: str, in_training: tuple[str, ...], in_rollout: tuple[str, ...]
) -> None:
    keys = {"decide": "d" * 32, "outcomes": "o" * 32}
    here.apply_secret("renewals-keys", **keys)
    begin(here, name, tmp_path, serve=True)
    kill_and_wait(here, *in_training)
    run = approved(here, name)
    assert integer(run, "status", "attempt") == 1, "the driver was not harmed"
    url = until(lambda: address(here, name), 120, "the endpoint answers")
    renewals = Renewals(url, keys, np.random.default_rng(23))
    point = rolls_out(f"{name}-1", name, step=1)
    until(lambda: renew(renewals) and point(here), 180, "the rollout is at its second step")
    kill_and_wait(here, *in_rollout)

    def promoted() -> bool:
        renew(renewals)
        found = here.get(DEPLOYMENT, name)
        assert found is not None
        now = Deployment.parse(found).status
        assert not now.rejected, now.rejected
        return now.stable is not None and now.stable.version == text(run, "status", "modelVersion")

    until(promoted, 300, "version 1 is promoted")


@pytest.mark.nightly
@pytest.mark.timeout(480)
def test_a_run_whose_ray_is_killed_is_approved_in_its_second_attempt(here: Embedded, tmp_path: Path) -> None:
    begin(here, "again", tmp_path, serve=False)
    kill_and_wait(here, "ray")
    assert integer(approved(here, "again"), "status", "attempt") == 2


KILLS = (
    Kill(
        "the replica while version 1 is at its first step",
        ("replica",),
        rolls_out("orange-juice-1", "orange-juice", step=0),
    ),
    Kill("Ray while version 2 trains", ("ray",), trains("orange-juice-2")),
    Kill(
        "operator and agent in the middle of its rollout",
        ("operator", "agent"),
        rolls_out("orange-juice-2", "orange-juice", step=1),
    ),
    Kill("MLflow while the broken import trains", ("mlflow",), trains("orange-juice-by-hand")),
    Kill("the operator while it is judged", ("operator",), rolls_out("orange-juice-by-hand", "orange-juice", step=0)),
    Kill("Ray in the middle of the last rollout", ("ray",), rolls_out("orange-juice-3", "orange-juice", step=1)),
)


@pytest.mark.nightly
@pytest.mark.timeout(DEMO_SECONDS + 120)
def test_the_demo_passes_every_act_though_operator_agent_ray_mlflow_and_replicas_are_killed(tmp_path: Path) -> None:
    state = StateDir(tmp_path / "demo")
    program = (sys.executable, "-c", "from drivetrain.cli.main import main; main()", "demo", "--state", str(state.root))
    told = tmp_path / "demo.log"
    with told.open("wb") as output, Killer(state, KILLS, np.random.default_rng(SEED)) as killer:
        demo = subprocess.Popen(program, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT, env={**os.environ})
        try:
            code = demo.wait(DEMO_SECONDS)
        finally:
            demo.kill()
            down(state, lambda component, message: None)
    lines = told.read_text().splitlines()
    assert code == 0, "\n".join(lines[-30:])
    assert sorted(killer.done) == sorted(each.name for each in KILLS)
    report = json.loads((state.root / "report" / "report.json").read_text())
    assert [act["passed"] for act in report["acts"]] == [True] * 4


def begin(here: Embedded, name: str, folder: Path, *, serve: bool) -> None:
    """The second example, in training."""
    past = folder / "past.csv"
    history(3_000, np.random.default_rng(22)).write_csv(past)
    project = yaml.safe_load((ROOT / "examples" / "renewals" / "project.yaml").read_text())
    project["metadata"]["name"] = name
    spec = project["spec"]
    if not serve:
        del spec["serving"]
    spec["data"]["store"]["uri"] = f"s3://drivetrain/{name}"
    spec["data"]["sources"] = [{"name": "past", "uri": past.as_uri(), "format": "CSV"}]
    here.apply(project)

    def stage() -> str:
        found = here.get(TRAINING_RUN, f"{name}-1")
        return text(found, "status", "stage") if found else ""

    until(stage, 120, "the driver reports a stage")


def kill_and_wait(here: Embedded, *victims: str) -> None:
    """Kills them at once; returns when all components are ready again."""
    before = {component.name: component for component in status(here.state)}
    rng = np.random.default_rng(SEED)
    for victim in victims:
        assert kill(here.state, victim, rng), f"{victim} runs"

    def recovered() -> bool:
        found = {component.name: component for component in status(here.state)}
        named = [victim for victim in victims if victim in found]
        again = [name for name in named if found[name].restarts > before[name].restarts]
        return again == named and all(component.phase == "Ready" for component in found.values())

    until(recovered, 180, "everything is ready again")


def approved(here: Embedded, name: str) -> Document:
    """The run, once its version is approved."""

    def ended() -> Document | None:
        found = here.get(TRAINING_RUN, f"{name}-1")
        assert found is not None
        assert condition_in_force(found, "Stalled") is None, text(found, "status", "why")
        return found if condition_in_force(found, "Complete") else None

    return until(ended, 240, "the run is approved")


def address(here: Embedded, name: str) -> str | None:
    found = here.get(DEPLOYMENT, name)
    return text(found, "status", "url") if found and condition_in_force(found, "Ready") else None


def renew(renewals: Renewals) -> bool:
    """Subscribers who find nobody come again later."""
    try:
        renewals.renew(BATCH)
    except (DrivetrainError, urllib3.exceptions.HTTPError, ValueError):  # the last: what a proxy says is no JSON
        return False
    return True
