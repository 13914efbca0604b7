"""Killing what runs the platform while a run trains delays the run and does not break it."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import yaml

from drivetrain.api.documents import Document, integer, text
from drivetrain.api.kinds import TRAINING_RUN
from drivetrain.local.environment import status
from examples.renewals.market import history
from tests.embedded.conftest import Embedded, condition_in_force, until

pytestmark = pytest.mark.timeout(420)  # components and the driver start again on two busy cores

MANIFEST = Path(__file__).parents[2] / "examples" / "renewals" / "project.yaml"


@pytest.mark.embedded
def test_a_run_goes_on_though_operator_agent_and_mlflow_are_killed(embedded: Embedded, tmp_path: Path) -> None:
    here = embedded.within("faults")
    begin(here, "outlived", tmp_path)
    kill(here, "operator", "agent", "mlflow")
    assert integer(approved(here, "outlived"), "status", "attempt") == 1, "the driver was not harmed"


@pytest.mark.nightly
def test_a_run_whose_ray_is_killed_is_approved_in_its_second_attempt(embedded: Embedded, tmp_path: Path) -> None:
    here = embedded.within("faults")
    begin(here, "again", tmp_path)
    kill(here, "ray")
    assert integer(approved(here, "again"), "status", "attempt") == 2


def begin(here: Embedded, name: str, folder: Path) -> None:
    """The second example without serving, in training."""
    past = folder / "past.csv"
    history(3_000, np.random.default_rng(22)).write_csv(past)
    project = yaml.safe_load(MANIFEST.read_text())
    project["metadata"]["name"] = name
    spec = project["spec"]
    del spec["serving"]
    spec["data"]["store"]["uri"] = f"s3://drivetrain/{name}"
    spec["data"]["sources"] = [{"name": "past", "uri": past.as_uri(), "format": "CSV"}]
    here.apply(project)

    def stage() -> str:
        found = here.get(TRAINING_RUN, f"{name}-1")
        return text(found, "status", "stage") if found else ""

    until(stage, 120, "the driver reports a stage")


def kill(here: Embedded, *names: str) -> None:
    """Kills components at once; returns when all are ready again."""
    before = {component.name: component for component in status(here.state)}
    for name in names:
        pid = before[name].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    def recovered() -> bool:
        found = {component.name: component for component in status(here.state)}
        again = [name for name in names if found[name].restarts > before[name].restarts]
        return len(again) == len(names) and all(component.phase == "Ready" for component in found.values())

    until(recovered, 180, "everything is ready again")


def approved(here: Embedded, name: str) -> Document:
    """The run, once its version is approved."""

    def ended() -> Document | None:
        found = here.get(TRAINING_RUN, f"{name}-1")
        assert found is not None
        assert condition_in_force(found, "Stalled") is None, text(found, "status", "why")
        return found if condition_in_force(found, "Complete") else None

    return until(ended, 240, "the run is approved")
