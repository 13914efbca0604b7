"""What a person asks by command, and that the operator does it."""

from collections.abc import Callable

import pytest

from drivetrain.api.documents import text
from drivetrain.api.errors import DrivetrainError
from drivetrain.api.kinds import DEPLOYMENT, DRIVETRAIN_PROJECT, TRAINING_RUN, Kind
from drivetrain.api.ledger import ProjectLedger
from drivetrain.api.v1alpha1.project import VersionReference
from drivetrain.cli import verbs
from tests.support.bench import Bench, RunBench, ServingBench
from tests.support.builders import a_deployment, a_project
from tests.unit.cli.person import Person

VERSION = VersionReference(version="1", digest="a" * 64, run="shop-1")


def rolling() -> ServingBench:
    """A candidate at its first step."""
    bench = ServingBench(a_deployment().document())
    bench.up()
    bench.tell()
    bench.approve(ProjectLedger(approved=VERSION))
    load(bench)
    return bench


def load(bench: ServingBench) -> None:
    candidate = bench.record.candidate
    assert candidate is not None
    bench.tell(loads=[{"hash": candidate.hash, "state": "Loaded"}])


def test_a_version_that_awaits_approval_is_approved_by_its_digest() -> None:
    bench = Bench(project=a_project().with_field("spec.loop.approval", "Manual").document())
    bench.write_ledger(DRIVETRAIN_PROJECT, "shop", ProjectLedger(awaiting_approval=VERSION))
    bench.reconcile(DRIVETRAIN_PROJECT, "shop")
    asked = verbs.approve(Person(bench), "shop")
    assert asked.value is not None
    assert asked.value.partition(":")[0] == VERSION.digest


def test_nothing_is_approved_where_nothing_waits() -> None:
    with pytest.raises(DrivetrainError, match="No version of shop awaits approval"):
        verbs.approve(Person(Bench()), "shop")


def test_an_aborted_candidate_can_be_tried_again_and_aborted_again() -> None:
    bench = rolling()
    person = Person(bench)
    for _ in range(2):
        verbs.abort(person, "shop")
        bench.look()
        assert (bench.record.candidate, bench.record.rejected[0].reason) == (None, "Aborted")
        verbs.retry(person, "shop")
        bench.look()
        assert bench.record.rejected == ()
        load(bench)


def test_a_candidate_is_promoted_by_hand() -> None:
    bench = rolling()
    verbs.promote(Person(bench), "shop")
    bench.look()
    assert text(bench.read(DEPLOYMENT, "shop"), "status", "stable", "version") == "1"


def test_a_rollout_is_paused_and_resumed() -> None:
    bench = rolling()
    verbs.pause(Person(bench), "shop")
    bench.look()
    assert (bench.said("Progressing") or ("", "", ""))[1] == "Paused"
    verbs.resume(Person(bench), "shop")
    bench.look()
    assert (bench.said("Progressing") or ("", "", ""))[1] == "RollingOut"


def test_a_cancelled_run_ends() -> None:
    bench = RunBench()
    bench.running()
    verbs.cancel(Person(bench), "shop-1")
    bench.look()
    assert bench.record.reason == "Cancelled"


def test_a_retraining_asked_for_twice_has_two_values() -> None:
    person = Person(Bench())
    assert verbs.retrain(person, "shop").value != verbs.retrain(person, "shop").value


@pytest.mark.parametrize(
    ("verb", "kind"),
    [(verbs.retrain, DRIVETRAIN_PROJECT), (verbs.pause, DEPLOYMENT), (verbs.cancel, TRAINING_RUN)],
)
def test_a_name_that_does_not_exist_is_told_with_those_that_do(
    verb: Callable[[verbs.Session, str], verbs.Asked], kind: Kind
) -> None:
    with pytest.raises(DrivetrainError, match=f"There is no {kind.kind} shpo in namespace default"):
        verb(Person(Bench()), "shpo")


@pytest.mark.parametrize("verb", [verbs.promote, verbs.abort, verbs.retry])
def test_what_asks_for_a_candidate_says_when_there_is_none(
    verb: Callable[[verbs.Session, str], verbs.Asked],
) -> None:
    bench = ServingBench(a_deployment().document())
    with pytest.raises(DrivetrainError, match="There is nothing to"):
        verb(Person(bench), "shop")
