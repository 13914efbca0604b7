"""Reports: one key of one ConfigMap, bounded, rising in sequence, with a heartbeat; and who may claim."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from drivetrain.api.errors import FencedError, ForbiddenError, NotFoundError, UnavailableError
from drivetrain.api.report import REPORT_LIMIT, RunResult, TrainingReport
from drivetrain.api.v1alpha1.trainingrun import GateResult, SliceMetric
from drivetrain.pipelines.reporting import ConfigMapSink, Reporter, await_incarnation, bounded, sink_from
from drivetrain.pipelines.stage import StageName
from tests.support.pod import CLUSTER, Pod, a_pod

NOW = datetime(2026, 3, 1, tzinfo=UTC)
DEADLINE = 10.0


class Reports:
    """A sink that keeps what was written, and may refuse for a while."""

    def __init__(self) -> None:
        self.written: list[TrainingReport] = []
        self.refusals = 0
        self.changed = threading.Condition()

    def write(self, report: TrainingReport) -> None:
        with self.changed:
            if self.refusals:
                self.refusals -= 1
                raise UnavailableError("busy", kind="ConfigMap", namespace="n", name="r", status=503)
            self.written.append(report)
            self.changed.notify_all()

    def wait_for(self, count: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.written) >= count, DEADLINE)


def a_reporter(sink: Reports, beat: float = 60.0) -> Reporter:
    return Reporter(sink, attempt=2, incarnation=3, clock=lambda: NOW, beat=beat, pause=0.01)


def test_a_report_beats_while_nothing_changes_and_its_sequence_rises() -> None:
    sink = Reports()
    with a_reporter(sink, beat=0.01):
        sink.wait_for(2)
    assert [report.sequence for report in sink.written] == list(range(1, len(sink.written) + 1))
    assert {(report.attempt, report.incarnation) for report in sink.written} == {(2, 3)}


def test_a_change_is_written_at_once() -> None:
    sink = Reports()
    with a_reporter(sink) as reporter:
        reporter.began(StageName.TUNING)
        sink.wait_for(1)
    assert sink.written[0].stage == "Tuning"
    assert sink.written[0].progress.percent == 20


def test_progress_never_falls_though_stages_come_in_another_order() -> None:
    reporter = a_reporter(Reports())
    reporter.ended(StageName.EVALUATION, reused=True, seconds=0)
    reporter.began(StageName.TRAINING)
    assert reporter.report.progress.percent == 92


def test_finished_trials_are_counted_beside_the_percent() -> None:
    reporter = a_reporter(Reports())
    reporter.advanced(StageName.TUNING, 0.5)
    reporter.trials(7)
    assert (reporter.report.progress.trials_done, reporter.report.progress.percent) == (7, 40)


def test_a_beat_that_fails_is_made_up_by_the_next() -> None:
    sink = Reports()
    sink.refusals = 1
    with a_reporter(sink, beat=0.01) as reporter:
        reporter.update(data_version="abc")
        sink.wait_for(1)
    assert sink.written[0].data_version == "abc"


def test_the_final_report_insists() -> None:
    sink = Reports()
    sink.refusals = 1
    reporter = a_reporter(sink)
    reporter.finish(RunResult(state="Approved", version="3"))
    assert sink.written[-1].result == RunResult(state="Approved", version="3")
    assert sink.written[-1].progress.percent == 100


def test_a_report_is_cut_to_its_bound_and_keeps_its_result() -> None:
    long = "x" * 1000
    report = TrainingReport(
        attempt=1,
        sequence=1,
        at=NOW,
        slices=tuple(SliceMetric(slice="s", metric="m", value=1, rows=1) for _ in range(10)),
        gates=tuple(GateResult(name="n", verdict="Passed", message="\U0001f34a" * 1000) for _ in range(32)),
        result=RunResult(state="Failed", message=long),
    )
    text = bounded(report)
    assert len(text.encode()) <= REPORT_LIMIT
    assert TrainingReport.model_validate_json(text).result == report.result


def test_an_ordinary_report_is_written_whole() -> None:
    report = TrainingReport(attempt=1, sequence=1, at=NOW, metrics={"logLoss": 0.5})
    assert TrainingReport.model_validate_json(bounded(report)) == report


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[Pod]:
    with a_pod(tmp_path) as made:
        yield made


def sink_of(pod: Pod) -> ConfigMapSink:
    return sink_from(pod.env, namespace="team-a", name="trainingrun-juice-1-report", cluster=CLUSTER)


def test_a_report_is_one_key_applied_under_a_field_manager_of_its_own(pod: Pod) -> None:
    report = TrainingReport(attempt=1, sequence=4, at=NOW)
    sink_of(pod).write(report)
    ((method, path, headers, body),) = pod.asked
    assert method == "PATCH"
    assert path == (
        "/api/v1/namespaces/team-a/configmaps/trainingrun-juice-1-report"
        "?fieldManager=drivetrain-driver-juice-1-a1-xyz&force=true"
    )
    assert headers["Authorization"] == "Bearer secret-token"
    assert headers["Content-Type"] == "application/apply-patch+yaml"
    assert list(body["data"]) == ["juice-1-a1-xyz"]
    assert TrainingReport.model_validate_json(body["data"]["juice-1-a1-xyz"]) == report


@pytest.mark.parametrize(
    ("status", "kind"), [(404, NotFoundError), (401, ForbiddenError), (403, ForbiddenError), (500, UnavailableError)]
)
def test_what_the_api_server_refuses_is_told_by_kind(pod: Pod, status: int, kind: type[Exception]) -> None:
    pod.status = status
    with pytest.raises(kind):
        sink_of(pod).write(TrainingReport(attempt=1, sequence=1, at=NOW))


def test_an_api_server_that_is_gone_is_unavailable(pod: Pod) -> None:
    pod.env["KUBERNETES_SERVICE_PORT"] = "9"
    with pytest.raises(UnavailableError):
        sink_of(pod).incarnation()


def test_a_driver_claims_with_the_number_that_the_operator_gave_its_cluster(pod: Pod) -> None:
    pod.annotations["drivetrain.dev/incarnation"] = "7 juice-1-a1-xyz"
    assert await_incarnation(sink_of(pod), "juice-1-a1-xyz", deadline=DEADLINE) == 7


def test_a_driver_waits_until_the_operator_has_seen_its_cluster(pod: Pod) -> None:
    def name_it() -> None:
        pod.wait_until_asked(1, DEADLINE)
        pod.annotations["drivetrain.dev/incarnation"] = "1 juice-1-a1-xyz"

    thread = threading.Thread(target=name_it)
    thread.start()
    assert await_incarnation(sink_of(pod), "juice-1-a1-xyz", deadline=DEADLINE, pause=0.01) == 1
    thread.join()


@pytest.mark.parametrize("named", ["8 juice-1-a1-other", "", "garbage"])
def test_a_driver_whose_cluster_is_not_expected_ends(pod: Pod, named: str) -> None:
    pod.annotations["drivetrain.dev/incarnation"] = named
    with pytest.raises(FencedError):
        await_incarnation(sink_of(pod), "juice-1-a1-xyz", deadline=0.02, pause=0.01)
