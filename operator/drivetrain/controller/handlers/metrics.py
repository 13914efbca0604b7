"""What the operator counts about itself, written in the Prometheus text format (version 0.0.4)."""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from drivetrain.api.documents import Document, text, value
from drivetrain.api.kinds import Ref

Labels: TypeAlias = tuple[str, ...]

DURATIONS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@dataclass(slots=True)
class Series:
    """A counter or a gauge with a fixed set of label names."""

    name: str
    description: str
    type: Literal["counter", "gauge"]
    label_names: Labels = ()
    values: dict[Labels, float] = field(default_factory=dict)

    def add(self, *labels: str, amount: float = 1.0) -> None:
        """Add to the value of these labels."""
        self.values[labels] = self.values.get(labels, 0.0) + amount

    def set(self, *labels: str, value: float) -> None:
        """Replace the value of these labels."""
        self.values[labels] = value

    def lines(self) -> Iterable[str]:
        """Return the series as text lines."""
        yield f"# HELP {self.name} {self.description}"
        yield f"# TYPE {self.name} {self.type}"
        for labels, amount in sorted(self.values.items()):
            yield f"{self.name}{_labels(zip(self.label_names, labels, strict=True))} {amount:.10g}"


@dataclass(slots=True)
class Histogram:
    """Durations in seconds, counted by upper bound."""

    name: str
    description: str
    label_names: Labels
    counts: dict[Labels, list[int]] = field(default_factory=dict)
    sums: dict[Labels, float] = field(default_factory=dict)

    def observe(self, *labels: str, seconds: float) -> None:
        """Count one duration."""
        counts = self.counts.setdefault(labels, [0] * (len(DURATIONS) + 1))
        counts[bisect_left(DURATIONS, seconds)] += 1
        self.sums[labels] = self.sums.get(labels, 0.0) + seconds

    def lines(self) -> Iterable[str]:
        """Return the histogram as text lines; buckets are cumulative."""
        yield f"# HELP {self.name} {self.description}"
        yield f"# TYPE {self.name} histogram"
        for labels, counts in sorted(self.counts.items()):
            pairs = list(zip(self.label_names, labels, strict=True))
            total = 0
            for bound, count in zip((*map(str, DURATIONS), "+Inf"), counts, strict=True):
                total += count
                yield f"{self.name}_bucket{_labels([*pairs, ('le', bound)])} {total}"
            yield f"{self.name}_sum{_labels(pairs)} {self.sums[labels]:.10g}"
            yield f"{self.name}_count{_labels(pairs)} {total}"


def _labels(pairs: Iterable[tuple[str, str]]) -> str:
    escaped = ((name, text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")) for name, text in pairs)
    joined = ",".join(f'{name}="{text}"' for name, text in escaped)
    return f"{{{joined}}}" if joined else ""


class Metrics:
    """All metrics of one operator process."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._started = monotonic()
        self._watched_at: dict[str, float] = {}
        self.reconciles = Series(
            "drivetrain_reconciles_total", "Reconciles by kind and result.", "counter", ("kind", "result")
        )
        self.durations = Histogram("drivetrain_reconcile_seconds", "Duration of a reconcile.", ("kind",))
        self.requests = Series(
            "drivetrain_api_requests_total",
            "Requests to the API server; code 0 means no answer.",
            "counter",
            ("verb", "resource", "code"),
        )
        self.request_durations = Histogram(
            "drivetrain_api_request_seconds", "Time until the API server answered.", ("verb",)
        )
        self.queue_depth = Series("drivetrain_queue_depth", "Objects that are due and wait for a worker.", "gauge")
        self.queue_age = Series("drivetrain_queue_oldest_seconds", "How long the oldest of them has waited.", "gauge")
        self.watch_age = Series(
            "drivetrain_watch_age_seconds",
            "Time since a watch brought an event or was renewed.",
            "gauge",
            ("resource",),
        )
        self.leader = Series("drivetrain_leader", "1 while this process holds the lease.", "gauge")
        self.conditions = Series(
            "drivetrain_resource_condition",
            "1 for the present status and reason of each condition of each resource.",
            "gauge",
            ("kind", "namespace", "name", "type", "status", "reason"),
        )

        run = ("namespace", "project", "name", "queue")
        self.gpu_seconds = Series("drivetrain_run_gpu_seconds", "GPUs by the time that a run held them.", "gauge", run)
        self.waiting_seconds = Series(
            "drivetrain_run_waiting_seconds", "How long a run was ready to go and had no quota.", "gauge", run
        )
        self.project_gpu_seconds = Series(
            "drivetrain_project_gpu_seconds",
            "The same of all runs of a project that are still there.",
            "gauge",
            ("namespace", "project"),
        )
        self.queue_gpu_seconds = Series(
            "drivetrain_queue_gpu_seconds",
            "The same of all runs of a queue that are still there.",
            "gauge",
            ("namespace", "queue"),
        )

    def observe_request(self, verb: str, resource: str, status: int, seconds: float) -> None:
        """Count one request to the API server."""
        self.requests.add(verb, resource, str(status))
        self.request_durations.observe(verb, seconds=seconds)
        if verb == "watch" and status == 200:
            self.saw_watch(resource)

    def saw_watch(self, resource: str) -> None:
        """Take note that the watch of a resource is alive."""
        self._watched_at[resource] = self._monotonic()

    def age_of_watch(self, resource: str) -> float:
        """Return for how many seconds the watch of a resource gave no sign of life, or since the start."""
        return self._monotonic() - self._watched_at.get(resource, self._started)

    def show_conditions(self, kind: str, namespace: str, name: str, conditions: Mapping[str, tuple[str, str]]) -> None:
        """Replace the conditions (type to status and reason) of one resource; none: the resource is gone."""
        for labels in [labels for labels in self.conditions.values if labels[:3] == (kind, namespace, name)]:
            del self.conditions.values[labels]
        for condition, (status, reason) in conditions.items():
            self.conditions.set(kind, namespace, name, condition, status, reason, value=1.0)

    def show_run(self, ref: Ref, owner: Document | None) -> None:
        """Replace what one run has cost and waited; None: it is gone."""
        for series, part in ((self.gpu_seconds, "gpuSeconds"), (self.waiting_seconds, "waitingSeconds")):
            for labels in [labels for labels in series.values if (labels[0], labels[2]) == (ref.namespace, ref.name)]:
                del series.values[labels]
            amount = value(owner or {}, "status", part)
            if owner is not None and isinstance(amount, int | float):
                project, queue = text(owner, "spec", "project"), text(owner, "spec", "queue", "name")
                series.set(ref.namespace, project, ref.name, queue, value=amount)
        for sums in (self.project_gpu_seconds, self.queue_gpu_seconds):
            sums.values.clear()
        for (namespace, project, _, queue), amount in self.gpu_seconds.values.items():
            self.project_gpu_seconds.add(namespace, project, amount=amount)
            if queue:
                self.queue_gpu_seconds.add(namespace, queue, amount=amount)

    def text(self) -> str:
        """Return everything in the Prometheus text format."""
        for resource in self._watched_at:
            self.watch_age.set(resource, value=self.age_of_watch(resource))
        parts = (
            *(self.reconciles, self.durations, self.requests, self.request_durations),
            *(self.queue_depth, self.queue_age, self.watch_age, self.leader, self.conditions),
            *(self.gpu_seconds, self.project_gpu_seconds, self.queue_gpu_seconds, self.waiting_seconds),
        )
        return "\n".join(line for part in parts for line in part.lines()) + "\n"
