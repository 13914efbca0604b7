"""`drivetrain doctor`: what it sees of a cluster in bad moments."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import pytest
from typer.testing import CliRunner

from drivetrain.api.documents import Document
from drivetrain.api.kinds import CLUSTER_QUEUE, LOCAL_QUEUE, PENDING_WORKLOADS, TRAINING_RUN, WORKLOAD, Kind
from drivetrain.cli import judging
from drivetrain.cli.diagnosis import Check
from drivetrain.cli.examination import Examination
from drivetrain.cli.foreign import APPS_DEPLOYMENT
from drivetrain.cli.main import app
from tests.support.bench import Bench, RunBench
from tests.unit.cli.person import Person
from tests.unit.cli.test_answer import no_store

KUEUE: Document = {
    "metadata": {
        "name": "kueue-controller-manager",
        "namespace": "kueue-system",
        "labels": {"app.kubernetes.io/name": "kueue"},
    },
    "status": {},
}


class Visitor(Person):
    """A person before a doctor."""

    def read(self, path: str) -> Document:
        return {"major": "1", "minor": "35", "gitVersion": "v1.35.0"}

    def may(self, verb: str, kind: Kind, *, namespace: str | None = None, subresource: str = "") -> bool:
        return True

    def clock(self) -> datetime | None:
        return None


def visitor(bench: Bench, *down: Kind) -> Visitor:
    return Visitor(bench, others={APPS_DEPLOYMENT: (KUEUE,), LOCAL_QUEUE: (), CLUSTER_QUEUE: ()}, down=down)


def seen(bench: Bench, *down: Kind) -> dict[str, Check]:
    found: Sequence[Check] = tuple(Examination(visitor(bench, *down), no_store, bench.now).checks())
    return {check.subject: check for check in found}


def test_a_kueue_that_is_down_is_found_and_the_other_checks_are_made() -> None:
    checks = seen(RunBench(queue={"name": "gpu-pool"}), PENDING_WORKLOADS, WORKLOAD, LOCAL_QUEUE, CLUSTER_QUEUE)
    assert (checks["Kueue"].level, "has no ready Pod" in checks["Kueue"].told) == ("fail", True)
    assert (checks["queues"].level, "(HTTP 503)" in checks["queues"].told) == ("warn", True)
    assert "queue gpu-pool" not in checks, "nobody knows whether it exists"
    assert checks["your rights"].level == "ok"


def test_a_queue_that_a_run_names_and_nobody_made_fails() -> None:
    assert seen(RunBench(queue={"name": "gpu-pool"}))["queue gpu-pool"].level == "fail"


@dataclass
class Connected:
    """A person's session, as commands get it."""

    session: Visitor
    local: None = None


def test_checks_are_printed_for_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "connected", lambda *_: Connected(visitor(RunBench(queue={"name": "gpu-pool"}))))
    result = CliRunner().invoke(app, ["doctor", "-o", "json"])
    levels = {check["subject"]: check["level"] for check in json.loads(result.stdout)["checks"]}
    assert (result.exit_code, levels["Kubernetes"], levels["Kueue"]) == (1, "ok", "fail")


def test_checks_are_shown_before_one_fails_to_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "connected", lambda *_: Connected(visitor(Bench(), TRAINING_RUN)))
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 1
    assert "ok    Kubernetes" in result.stdout
