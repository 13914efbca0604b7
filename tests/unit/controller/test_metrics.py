"""The Prometheus text, parsed back by the reference parser."""

from prometheus_client.parser import text_string_to_metric_families

from drivetrain.api.documents import Document
from drivetrain.api.kinds import TRAINING_RUN, Ref
from drivetrain.controller.handlers.metrics import Metrics


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(metrics.text())
        for sample in family.samples
    }


def test_counters_gauges_and_histograms_read_back() -> None:
    metrics = Metrics(Clock())
    metrics.reconciles.add("TrainingRun", "success")
    metrics.reconciles.add("TrainingRun", "success")
    metrics.queue_depth.set(value=3)
    for seconds in (0.004, 0.3, 99.0):
        metrics.durations.observe("TrainingRun", seconds=seconds)
    found = samples(metrics)
    kind = ("kind", "TrainingRun")
    assert found["drivetrain_reconciles_total", (kind, ("result", "success"))] == 2.0
    assert found["drivetrain_queue_depth", ()] == 3.0
    assert found["drivetrain_reconcile_seconds_count", (kind,)] == 3.0
    assert found["drivetrain_reconcile_seconds_sum", (kind,)] == 99.304
    buckets = [
        found["drivetrain_reconcile_seconds_bucket", (kind, ("le", bound))]
        for bound in ("0.005", "0.5", "10.0", "+Inf")
    ]
    assert buckets == [1.0, 2.0, 2.0, 3.0]


def test_label_values_are_escaped() -> None:
    metrics = Metrics(Clock())
    metrics.show_conditions("TrainingRun", "team", 'a"\\\nb', {"Ready": ("True", "Serving")})
    assert any(dict(labels).get("name") == 'a"\\\nb' for _, labels in samples(metrics))


def test_a_condition_that_changed_or_went_is_not_shown_any_more() -> None:
    metrics = Metrics(Clock())
    waits = {"Ready": ("False", "Queued"), "Reconciling": ("True", "Queued")}
    metrics.show_conditions("TrainingRun", "team", "a", waits)
    metrics.show_conditions("TrainingRun", "team", "a", {"Ready": ("False", "Starting")})
    metrics.show_conditions("TrainingRun", "team", "a", {"Ready": ("True", "Succeeded")})
    metrics.show_conditions("TrainingRun", "team", "b", {"Ready": ("True", "Succeeded")})
    metrics.show_conditions("TrainingRun", "team", "b", {})
    shown = list(metrics.conditions.values)
    assert shown == [("TrainingRun", "team", "a", "Ready", "True", "Succeeded")]


def test_what_a_run_cost_and_waited_is_shown_until_it_is_gone() -> None:
    metrics = Metrics(Clock())
    ref = Ref(TRAINING_RUN, "team", "shop-1")
    spec: Document = {"project": "shop", "queue": {"name": "gpu-pool"}}
    metrics.show_run(ref, {"spec": spec, "status": {"gpuSeconds": 120, "waitingSeconds": 60}})
    metrics.show_run(ref, {"spec": spec, "status": {"gpuSeconds": 180.5, "waitingSeconds": 60}})
    labels = (("name", "shop-1"), ("namespace", "team"), ("project", "shop"), ("queue", "gpu-pool"))
    assert samples(metrics)["drivetrain_run_gpu_seconds", labels] == 180.5
    assert samples(metrics)["drivetrain_run_waiting_seconds", labels] == 60.0
    metrics.show_run(ref, None)
    assert not metrics.gpu_seconds.values


def test_what_projects_and_queues_cost_is_the_sum_over_the_runs_that_are_there() -> None:
    metrics = Metrics(Clock())
    for name, project, queue, seconds in (
        ("a", "shop", "gpus", 10),
        ("b", "shop", "", 2.5),
        ("c", "other", "gpus", 40),
    ):
        spec: Document = {"project": project, **({"queue": {"name": queue}} if queue else {})}
        metrics.show_run(Ref(TRAINING_RUN, "team", name), {"spec": spec, "status": {"gpuSeconds": seconds}})
    team = ("namespace", "team")
    assert samples(metrics)["drivetrain_project_gpu_seconds", (team, ("project", "shop"))] == 12.5
    assert samples(metrics)["drivetrain_queue_gpu_seconds", (team, ("queue", "gpus"))] == 50
    assert ("drivetrain_queue_gpu_seconds", (team, ("queue", ""))) not in samples(metrics)
    metrics.show_run(Ref(TRAINING_RUN, "team", "c"), None)
    assert samples(metrics)["drivetrain_queue_gpu_seconds", (team, ("queue", "gpus"))] == 10


def test_the_age_of_a_watch_counts_from_its_last_event_or_renewal() -> None:
    clock = Clock()
    metrics = Metrics(clock)
    metrics.observe_request("watch", "pods", 200, 0.01)
    metrics.observe_request("watch", "services", 503, 0.01)
    clock.seconds = 40.0
    metrics.saw_watch("pods")
    clock.seconds = 100.0
    found = samples(metrics)
    assert found["drivetrain_watch_age_seconds", (("resource", "pods"),)] == 60.0
    assert ("drivetrain_watch_age_seconds", (("resource", "services"),)) not in found
    assert found["drivetrain_api_requests_total", (("code", "503"), ("resource", "services"), ("verb", "watch"))] == 1.0
