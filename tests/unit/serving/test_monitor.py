"""The Monitor against a store, stepped by hand: exactly once, whatever restarts."""

import io
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from drivetrain.api import layout
from drivetrain.api.errors import ModelError
from drivetrain.api.policy import EndpointConfig
from drivetrain.api.report import ServingReport, ShadowEvidence, same_sources
from drivetrain.api.v1alpha1.dataset import Source
from drivetrain.serving.adjustments import adjustments_key, read_adjustments
from drivetrain.serving.held_policies import LoadState
from drivetrain.serving.monitor import Monitor
from drivetrain.serving.replica import ReplicaState
from drivetrain.serving.shadow import Shadowed
from drivetrain.serving.source_files import SourceWatch
from tests.unit.serving.conftest import View
from tests.unit.serving.logs import START, Traffic, put, true_market
from tests.unit.serving.worlds import World, policy, publish

KPI = {"name": "margin", "unit": "USD", "minimum": "-1", "maximum": "1", "maturesAfter": "1m"}


class Written:
    """Keeps what would have gone to the operator."""

    def __init__(self) -> None:
        self.reports: list[ServingReport] = []

    def write(self, report: ServingReport) -> None:
        self.reports.append(report)


@pytest.fixture
def traffic(view: View, world: World) -> Traffic:
    stable = policy(publish(world.store), kpi=KPI)
    candidate = policy(publish(world.store, slope=3.0, intercept=6.0), version="2", kpi=KPI)
    return Traffic(view(stable=stable, candidate=candidate, weight=30, holdout=0.05), units=1500)


def monitor(world: World, traffic: Traffic, cluster: str = "blue") -> tuple[Monitor, Written]:
    written = Written()
    found = Monitor(
        replace(world.settings, cluster=cluster), world.store, written, SourceWatch(world.settings.bucket, {})
    )
    found.configure(traffic.serving.config)
    return found, written


def visit(world: World, traffic: Traffic, at: datetime, count: int = 100) -> None:
    """A batch of visits that is on the store, with its outcomes."""
    uploads, ids, decisions = traffic.decided(count, at)
    put(world.store, uploads)
    put(world.store, [traffic.outcomes(ids, decisions, true_market, at + timedelta(seconds=20))])


def seconds(number: float) -> datetime:
    return START + timedelta(seconds=number)


def evidence_of(report: ServingReport | None) -> dict[str, Any]:
    assert report is not None
    return report.model_dump(include={"rollout", "kpi", "drift", "matured", "explored", "watermark"})


def test_decisions_count_once_they_are_mature_and_only_once(world: World, traffic: Traffic) -> None:
    watching, _ = monitor(world, traffic)
    visit(world, traffic, seconds(0))
    watching.step(seconds(30))
    assert watching.report is not None
    assert watching.report.matured == 0
    for number in (63, 64, 65, 3700, 7300):
        watching.step(seconds(number))
        assert watching.report.matured == 100
    assert watching.report.rollout is not None
    assert watching.report.rollout.outcomes_stable + watching.report.rollout.outcomes_candidate > 85


@pytest.mark.parametrize("killed_after", [0, 4, 9, 14])
def test_a_restarted_monitor_goes_on_exactly(world: World, traffic: Traffic, killed_after: int) -> None:
    for number in range(12):
        visit(world, traffic, seconds(10 * number))
    steady, _ = monitor(world, traffic)
    for number in range(20):
        steady.step(seconds(60 + 10 * number))
    for info in list(world.store.list(layout.monitor("juice"))):
        world.store.delete(info.key)

    watching, _ = monitor(world, traffic)
    for number in range(20):
        watching.step(seconds(60 + 10 * number))
        if number == killed_after:  # nothing of it is left but what is on the store
            watching, _ = monitor(world, traffic)
    assert evidence_of(watching.report) == evidence_of(steady.report)
    assert watching.report is not None
    assert watching.report.matured == 1200


def test_a_monitor_that_was_away_counts_the_outcomes_that_came_in_time(world: World, traffic: Traffic) -> None:
    steady, _ = monitor(world, traffic)
    watching, _ = monitor(world, traffic)
    watching.step(seconds(0))
    for number in range(12):
        visit(world, traffic, seconds(10 * number))
        steady.step(seconds(10 * number + 5))
    for each in (steady, watching):
        each.step(seconds(3000))
    found, expected = (evidence_of(each.report) for each in (watching, steady))
    assert found["matured"] == 1200
    assert found["kpi"]["mean"] == pytest.approx(expected["kpi"]["mean"])


def test_two_clusters_of_one_deployment_go_on_from_one_another_and_overwrite_nothing(
    world: World, traffic: Traffic
) -> None:
    for number in range(12):
        visit(world, traffic, seconds(10 * number))
    blue, _ = monitor(world, traffic, "blue")
    for number in range(10):
        blue.step(seconds(60 + 10 * number))
    saved = {info.key: info.etag for info in world.store.list(layout.monitor("juice"))}

    green, _ = monitor(world, traffic, "green")
    for number in range(10, 20):
        green.step(seconds(60 + 10 * number))
    assert {info.key: info.etag for info in world.store.list(f"{layout.monitor('juice')}/blue/")} == saved
    for number in range(10, 20):
        blue.step(seconds(60 + 10 * number))
    assert evidence_of(green.report) == evidence_of(blue.report)
    restarted, _ = monitor(world, traffic, "green")
    restarted.step(seconds(250))
    assert evidence_of(restarted.report) == evidence_of(green.report)


@pytest.mark.parametrize("file", ["contract.json", "reference.json"])
def test_evidence_is_not_compared_with_an_altered_file(world: World, traffic: Traffic, file: str) -> None:
    model = traffic.serving.stable.policy.model
    assert model is not None
    key = f"{layout.model(model.digest)}/{file}"
    world.store.put(key, world.store.get(key) + b" ")
    watching, written = monitor(world, traffic)
    with pytest.raises(ModelError, match="was altered"):
        watching.step(seconds(0))
    assert not written.reports


def paced(traffic: Traffic, window: float) -> EndpointConfig:
    """The configuration of an endpoint whose status shows numbers over so many seconds."""
    config = traffic.serving.config
    monitoring = config.monitoring.model_copy(update={"window": timedelta(seconds=window)})
    return config.model_copy(update={"monitoring": monitoring})


@pytest.mark.parametrize(("window", "reports"), [(5, 31), (30, 11), (150, 3), (86400, 2)])
def test_numbers_alone_are_reported_ten_times_a_window_between_once_a_second_and_twice_a_minute(
    world: World, traffic: Traffic, window: float, reports: int
) -> None:
    config = paced(traffic, window)
    watching, written = monitor(world, traffic)
    watching.configure(config)
    for number in range(40):
        visit(world, traffic, seconds(number), count=3)
    for number in range(70, 101):
        watching.step(seconds(number))
    matured = [report.matured for report in written.reports]
    assert matured == sorted(set(matured)), "each tells something new"
    assert [report.sequence for report in written.reports] == list(range(1, reports + 1))


def test_without_traffic_a_report_goes_out_twice_a_minute(world: World, traffic: Traffic) -> None:
    watching, written = monitor(world, traffic)
    watching.configure(paced(traffic, 5))
    for number in range(91):
        watching.step(seconds(number))
    assert [(report.at - START).total_seconds() for report in written.reports] == [0, 30, 60, 90]


def test_what_is_decided_on_is_reported_with_the_next_step(
    world: World, traffic: Traffic, monkeypatch: pytest.MonkeyPatch
) -> None:
    watching, written = monitor(world, traffic)
    watching.step(seconds(0))
    candidate, at = str(traffic.serving.config.candidate), seconds(1)
    hear(watching, monkeypatch, at, replica("a", traffic, at, loads={candidate: LoadState("Loading")}))
    watching.step(at)
    hear(watching, monkeypatch, at, replica("a", traffic, at, loads={candidate: LoadState("Loaded")}))
    watching.step(seconds(2))
    hear(watching, monkeypatch, at, replica("a", traffic, at, weight=10, loads={candidate: LoadState("Loaded")}))
    watching.step(seconds(3))
    watching.step(seconds(4))
    told = [(report.weight, tuple(load.state for load in report.loads)) for report in written.reports]
    assert told == [(None, ()), (30, ("Loading",)), (30, ("Loaded",)), (10, ("Loaded",))]


def replica(name: str, traffic: Traffic, at: datetime, **changes: Any) -> ReplicaState:
    config = traffic.serving.config
    fields: dict[str, Any] = {
        "replica": name,
        "stable": config.stable,
        "candidate": config.candidate,
        "weight": config.weight,
        "rollout": config.rollout,
        "loads": {config.stable: LoadState("Loaded")},
        "uploaded_until": at,
        "regret": 0.0,
        "regret_rows": 0,
        "exploration": (config.exploration.share, config.exploration.steps),
        "shadowed": Shadowed(),
    }
    return ReplicaState(**(fields | changes))


def hear(watching: Monitor, monkeypatch: pytest.MonkeyPatch, at: datetime, *states: ReplicaState) -> None:
    monkeypatch.setattr("drivetrain.serving.monitor.now", lambda: at)
    for state in states:
        watching.heard(state)


def test_weights_and_loads_are_reported_once_all_replicas_agree(
    world: World, traffic: Traffic, monkeypatch: pytest.MonkeyPatch
) -> None:
    watching, _ = monitor(world, traffic)
    candidate = str(traffic.serving.config.candidate)
    at = seconds(0)
    first = replica("a", traffic, at, loads={candidate: LoadState("Loaded")})
    second = replica("b", traffic, at, weight=10, loads={candidate: LoadState("Loading")})
    hear(watching, monkeypatch, at, first, second)
    watching.step(at)
    assert watching.report is not None
    assert (watching.report.replicas, watching.report.weight) == (2, None)
    assert [(load.state, load.replicas) for load in watching.report.loads] == [("Loading", 1)]
    told = LoadState("Loaded", "RunsOnCPU", "CUDA cannot be used.")
    hear(watching, monkeypatch, at, replica("b", traffic, at, loads={candidate: told}))
    watching.step(seconds(1))
    assert (watching.report.weight, watching.report.stable) == (30, traffic.serving.config.stable)
    (load,) = watching.report.loads
    assert (load.state, load.replicas, load.reason, load.message) == ("Loaded", 2, told.reason, told.message)
    watching.step(seconds(10))
    assert watching.report.replicas == 0


def test_what_a_candidate_without_weight_did_is_summed_over_the_replicas_of_its_rollout(
    world: World, traffic: Traffic, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = traffic.serving.config.model_copy(update={"weight": 0})
    watching, _ = monitor(world, traffic)
    watching.configure(config)
    at = seconds(0)
    seen = Shadowed(decisions=100, fallbacks=5, fallbacks_stable=1, seconds=0.3)
    error = Shadowed(decisions=100, failed=20, seconds=0.1, message="bad shape")
    states = [replica(name, traffic, at, weight=0, shadowed=each) for name, each in (("a", seen), ("b", error))]
    hear(watching, monkeypatch, at, *states, replica("c", traffic, at, weight=0, rollout="earlier", shadowed=seen))
    watching.step(at)
    assert watching.report is not None
    assert watching.report.rollout is not None
    found = watching.report.rollout.shadow
    assert found == ShadowEvidence(
        decisions=200, failed=20, fallbacks=5, fallbacks_stable=1, milliseconds=2.0, message="bad shape"
    )
    watching.configure(traffic.serving.config)
    watching.step(seconds(1))
    assert watching.report.rollout.shadow is None


def test_the_watermark_waits_for_a_replica_that_cannot_upload(
    world: World, traffic: Traffic, monkeypatch: pytest.MonkeyPatch
) -> None:
    watching, _ = monitor(world, traffic)
    hear(watching, monkeypatch, seconds(100), replica("a", traffic, seconds(5)))
    watching.step(seconds(100))
    assert watching.report is not None
    assert watching.report.watermark == seconds(5 - 60 - 2)


def test_regret_beyond_the_bound_lowers_steps_and_then_the_share(
    world: World, traffic: Traffic, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = traffic.serving.config
    exploring = config.model_copy(
        update={"exploration": config.exploration.model_copy(update={"share": 0.2, "steps": 2, "max_regret": 0.01})}
    )
    watching, _ = monitor(world, traffic)
    watching.configure(exploring)
    key = adjustments_key(watching._settings.monitor)
    for number, (share, steps) in enumerate([(0.2, 2), (0.2, 1)]):
        at = seconds(number)
        state = replica("a", traffic, at, regret=20.0, regret_rows=1000, exploration=(share, steps))
        hear(watching, monkeypatch, at, state)
        watching.step(at)
    found = read_adjustments(world.store, key)
    assert found.steps == 1
    assert found.share == pytest.approx(0.2 / 2 * 0.99)
    assert watching.report is not None
    assert "maxRegret" in watching.report.adjusted["exploration"]


def test_new_files_of_a_source_change_the_reported_fingerprint(world: World, traffic: Traffic, tmp_path: Path) -> None:
    folder = tmp_path / "visits"
    folder.mkdir()
    (folder / "1.csv").write_text("a")
    stable = traffic.serving.stable
    source = Source(name="visits", uri=folder.as_uri(), format="CSV")
    mounted = stable.policy.model_copy(update={"sources": (source,)})
    assert world.mount(mounted) == stable.hash  # sources are no part of what is rolled out
    watching, written = monitor(world, traffic)
    watching.look()  # nothing is known before the first step
    watching.step(seconds(0))
    watching.look()
    watching.step(seconds(1))
    (folder / "2.csv").write_text("b")
    watching.look()
    watching.step(seconds(2))
    none, first, second = (report.data_fingerprint for report in written.reports)
    assert none is None
    assert first != second
    assert same_sources(first, second)


async def test_repeated_outcomes_keep_their_numbers_across_a_restart(world: World, traffic: Traffic) -> None:
    visit(world, traffic, seconds(0))
    watching, _ = monitor(world, traffic)
    watching._fill_book(seconds(30))  # what `run` does first
    watching._book_filled.set()
    reported = next(iter(world.store.list(layout.OUTCOMES)))

    row = pq.read_table(io.BytesIO(world.store.get(reported.key))).to_pylist()[0]
    assert await watching.number([(row["decision_id"], row["content"])]) == [0]
    assert await watching.number([(row["decision_id"], "other")]) == [1]
