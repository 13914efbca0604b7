"""`drivetrain status` and `drivetrain runs`: what the operator wrote, as a tree and as a table."""

import io

import pytest
from rich.console import Console, RenderableType

from drivetrain.api.errors import DrivetrainError
from drivetrain.api.kinds import DEPLOYMENT, DRIVETRAIN_PROJECT, TRAINING_RUN
from drivetrain.api.ledger import ProjectLedger
from drivetrain.api.v1alpha1.project import VersionReference
from drivetrain.cli.fitting import Fitted
from drivetrain.cli.loops import Loop, loops, read
from drivetrain.cli.runs import runs_table
from drivetrain.cli.tree import loop_tree
from tests.support.bench import Bench, RunBench, ServingBench
from tests.support.builders import a_deployment, a_project, a_run
from tests.unit.cli.person import Person

VERSION = VersionReference(version="1", digest="a" * 64, run="shop-1")


def shown(view: RenderableType, *, terminal: bool = False, width: int = 80) -> str:
    """The view as a file would get it, or a terminal without colours."""
    console = Console(file=io.StringIO(), width=width, soft_wrap=True, force_terminal=terminal, color_system=None)
    console.print(Fitted(view))
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def tree(bench: Bench) -> str:
    found = read(Person(bench))
    return "".join(shown(loop_tree(loop, bench.now)) for loop in found.loops)


def test_a_new_project_shows_its_first_run_and_what_comes_next() -> None:
    bench = Bench()
    bench.reconcile(DRIVETRAIN_PROJECT, "shop")
    bench.reconcile(TRAINING_RUN, "shop-1")
    bench.reconcile(DRIVETRAIN_PROJECT, "shop")
    told = tree(bench)
    assert "DrivetrainProject shop" in told
    assert "TrainingRun shop-1" in told
    assert "next: Gates of shop-1" in told
    assert "Deployment shop" in told


def test_a_running_run_shows_its_stage_and_how_far_it_is() -> None:
    bench = RunBench()
    bench.running()
    bench.tell(stage="tuning", progress={"percent": 45, "etaSeconds": 12})
    bench.look()
    told = tree(bench)
    assert "tuning 45 %, about 12 s left" in told


def test_a_rollout_shows_both_variants_and_its_weight() -> None:
    bench = ServingBench(a_deployment().document())
    bench.up()
    bench.tell()
    bench.approve(ProjectLedger(approved=VERSION))
    candidate = bench.record.candidate
    assert candidate is not None
    bench.tell(loads=[{"hash": candidate.hash, "state": "Loaded"}])
    told = tree(bench)
    assert "stable: today's policy" in told
    assert "candidate: version 1" in told
    assert "10 %, step 1 of 3" in told


def test_the_bound_of_a_portfolio_constraint_is_shown_with_the_candidates_own_mean() -> None:
    project = a_project().with_portfolio("purchase", minimum=0.25).document()
    bench = ServingBench(a_deployment().document(), project=project)
    bench.up()
    bench.tell()
    bench.approve(ProjectLedger(approved=VERSION))
    assert bench.record.candidate is not None
    loads = [{"hash": bench.record.candidate.hash, "state": "Loaded"}]
    bench.tell(loads=loads)
    found = {"metric": "purchase minimum", "role": "Bound", "estimate": 0.05, "lower": -0.01, "upper": 0.11}
    sides = {"stable": bench.record.stable.hash if bench.record.stable else "", "candidate": loads[0]["hash"]}
    counts = {"weight": 10, "outcomes_stable": 900, "outcomes_candidate": 100}
    bench.tell(loads=loads, rollout={"rollout": bench.record.candidate.rollout, "metrics": [found], **sides, **counts})
    assert "purchase minimum: +0.3 [+0.24, +0.36] against 0.25 Open" in tree(bench)


def test_a_run_whose_project_is_gone_is_shown_below_its_name() -> None:
    (loop,) = loops([a_run().document()])
    told = shown(loop_tree(loop, RunBench().now))
    assert "DrivetrainProject shop  does not exist" in told
    assert "TrainingRun shop-1  Unseen" in told


def test_loops_of_several_namespaces_are_apart_and_in_order() -> None:
    found = loops(each.document() for each in (a_project("shop", "b"), a_project("shop", "a"), a_run("shop-1", "b")))
    assert [(loop.namespace, len(loop.runs)) for loop in found] == [("a", 0), ("b", 1)]
    assert "DrivetrainProject a/shop" in shown(loop_tree(found[0], RunBench().now, namespaced=True))


def test_a_project_is_found_in_whatever_namespace_it_is_where_all_are_looked_at() -> None:
    bench = Bench()
    bench.cluster.put(a_project("till", "elsewhere").document())
    bench.cluster.put(a_run("till-1", "elsewhere", project="till").document())
    (loop,) = read(Person(bench), "till", everywhere=True).loops
    assert (loop.namespace, [run.metadata.name for run in loop.runs]) == ("elsewhere", ["till-1"])
    with pytest.raises(DrivetrainError, match=r"no DrivetrainProject till in namespace default.*There are: shop\."):
        read(Person(bench), "till")
    with pytest.raises(DrivetrainError, match=r"no DrivetrainProject tool in any namespace.*There are: shop, till\."):
        read(Person(bench), "tool", everywhere=True)


def test_the_table_of_runs_says_why_one_waits() -> None:
    bench = RunBench(queue={"name": "gpu-pool"})
    bench.look()
    told = shown(runs_table(read(Person(bench)).loops, bench.now))
    assert "shop-1" in told
    assert "Kueue has not seen the RayJob yet" in told


def waiting(why: str) -> tuple[Loop, ...]:
    run = a_run("orange-juice-12").with_field("status", {"why": why})
    return loops([a_project().document(), run.document()])


WHY = "Kueue waits: " + "2 more nvidia.com/gpu are needed, " * 6 + "of which none is free"


def test_a_pipe_gets_every_line_whole() -> None:
    (loop,) = waiting(WHY)
    now = RunBench().now
    assert f"why: {WHY}\n" in shown(loop_tree(loop, now))
    heading, row = shown(runs_table([loop], now)).splitlines()
    assert row.split()[0] == "orange-juice-12"
    assert row.rstrip().endswith(WHY)
    assert heading.index("STATE") == row.index("Unseen")


def test_a_terminal_gets_long_lines_wrapped_and_nothing_cut() -> None:
    (loop,) = waiting(WHY)
    now = RunBench().now
    for view, width in ((loop_tree(loop, now), 60), (runs_table([loop], now), 120)):
        lines = shown(view, terminal=True, width=width).splitlines()
        assert max(map(len, lines)) <= width
        assert [word for word in " ".join(lines).split() if word in WHY.split()] == WHY.split()


def test_a_terminal_without_room_for_the_columns_wraps_the_lines_itself() -> None:
    loops_ = waiting(WHY)
    told = runs_table(loops_, RunBench().now)
    assert shown(told, terminal=True, width=40) == shown(told)


def test_without_a_terminal_there_are_no_escape_sequences() -> None:
    bench = ServingBench(a_deployment().document())
    bench.reconcile(DEPLOYMENT, "shop")
    assert "\x1b" not in tree(bench)
