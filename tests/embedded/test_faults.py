"""Killing what runs the platform while a run trains delays the run and does not break it."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import yaml

from drivetrain.api.documents import text, value
from drivetrain.api.kinds import TRAINING_RUN
from drivetrain.local.environment import status
from examples.renewals.market import history
from tests.embedded.conftest import Embedded, condition_in_force, until

pytestmark = [pytest.mark.embedded, pytest.mark.timeout(420)]  # MLflow and the rest start again on two busy cores

MANIFEST = Path(__file__).parents[2] / "examples" / "renewals" / "project.yaml"
KILLED = ("operator", "agent", "mlflow")


def test_a_run_ends_approved_though_operator_agent_and_mlflow_are_killed_under_it(
    embedded: Embedded, tmp_path: Path
) -> None:
    here = embedded.within("faults")
    past = tmp_path / "past.csv"
    history(3_000, np.random.default_rng(22)).write_csv(past)
    project = yaml.safe_load(MANIFEST.read_text())
    project["metadata"]["name"] = "outlived"
    spec = project["spec"]
    del spec["serving"]
    spec["data"]["store"]["uri"] = "s3://drivetrain/outlived"
    spec["data"]["sources"] = [{"name": "past", "uri": past.as_uri(), "format": "CSV"}]
    here.apply(project)

    def stage() -> str:
        found = here.get(TRAINING_RUN, "outlived-1")
        return text(found, "status", "stage") if found else ""

    until(stage, 120, "the driver reports a stage")
    before = {component.name: component for component in status(here.state)}
    for name in KILLED:
        pid = before[name].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    def approved() -> bool:
        found = here.get(TRAINING_RUN, "outlived-1")
        assert found is not None
        assert condition_in_force(found, "Stalled") is None, text(found, "status", "why")
        return condition_in_force(found, "Complete") is not None

    until(approved, 240, "the run is approved")
    run = here.get(TRAINING_RUN, "outlived-1")
    assert value(run or {}, "status", "attempt") == 1, "the driver itself was not harmed"

    def recovered() -> bool:
        found = {component.name: component for component in status(here.state)}
        again = [name for name in KILLED if found[name].restarts == before[name].restarts + 1]
        return len(again) == len(KILLED) and all(component.phase == "Ready" for component in found.values())

    until(recovered, 180, "everything is ready again")
