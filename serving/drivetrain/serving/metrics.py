"""Counters of one replica, in Prometheus' text format.

A scrape comes by the balancer and meets any replica, so each series says whose it is.
"""

import threading
from collections import Counter
from typing import Final

from drivetrain.levers.assignment import Arm
from drivetrain.serving.decisions import Decisions

_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Metrics:
    """Counts requests, decisions and trouble of the replica of this name; safe on any thread."""

    def __init__(self, replica: str) -> None:
        self._replica = f'replica="{replica}"'
        self._guard = threading.Lock()
        self._requests: Counter[tuple[str, int]] = Counter()
        self._latency: Counter[tuple[str, float]] = Counter()
        self._seconds: Counter[str] = Counter()
        self._decisions: Counter[tuple[Arm, str]] = Counter()
        self._fallbacks: Counter[str] = Counter()
        self._explored = 0
        self._outcomes = 0
        self._store_failures: Counter[str] = Counter()
        self._background_failures: Counter[str] = Counter()
        self._unreadable = 0

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Counts a request."""
        with self._guard:
            self._requests[route, status] += 1
            self._seconds[route] += seconds  # type: ignore[assignment]  # a Counter holds floats as well
            bucket = next((bound for bound in _BUCKETS if seconds <= bound), float("inf"))
            self._latency[route, bucket] += 1

    def decided(self, decisions: Decisions) -> None:
        """Counts a decided batch."""
        with self._guard:
            self._decisions.update(zip(decisions.arms, decisions.policies, strict=True))
            self._fallbacks.update(reason for reason in decisions.fallback if reason)
            self._explored += int(decisions.explored.sum())

    def recorded(self, outcomes: int) -> None:
        """Counts acknowledged outcomes."""
        with self._guard:
            self._outcomes += outcomes

    def store_failed(self, reason: str) -> None:
        """Counts a store that did not do what was asked."""
        with self._guard:
            self._store_failures[reason] += 1

    def background_failed(self, error: str) -> None:
        """Counts a task in the background that failed of anything else, and is tried again."""
        with self._guard:
            self._background_failures[error] += 1

    def set_aside(self, segments: int) -> None:
        """Counts segments of the decision log that cannot be encoded."""
        with self._guard:
            self._unreadable += segments

    def text(self, *, ready: bool) -> str:
        """Everything counted so far."""
        mine = self._replica
        with self._guard:
            lines = ["# TYPE drivetrain_requests_total counter"]
            lines += [
                f'drivetrain_requests_total{{{mine},route="{route}",status="{status}"}} {count}'
                for (route, status), count in sorted(self._requests.items())
            ]
            lines.append("# TYPE drivetrain_request_seconds histogram")
            for route, total in sorted(self._seconds.items()):
                below = 0
                for bound in (*_BUCKETS, float("inf")):
                    below += self._latency[route, bound]
                    label = "+Inf" if bound == float("inf") else f"{bound:g}"
                    lines.append(f'drivetrain_request_seconds_bucket{{{mine},route="{route}",le="{label}"}} {below}')
                lines.append(f'drivetrain_request_seconds_sum{{{mine},route="{route}"}} {total:.6f}')
                lines.append(f'drivetrain_request_seconds_count{{{mine},route="{route}"}} {below}')
            lines.append("# TYPE drivetrain_decisions_total counter")
            lines += [
                f'drivetrain_decisions_total{{{mine},arm="{arm.value}",policy="{policy}"}} {count}'
                for (arm, policy), count in sorted(
                    self._decisions.items(), key=lambda item: (item[0][0].value, item[0][1])
                )
            ]
            lines.append("# TYPE drivetrain_fallbacks_total counter")
            lines += [
                f'drivetrain_fallbacks_total{{{mine},reason="{reason}"}} {count}'
                for reason, count in sorted(self._fallbacks.items())
            ]
            lines.append("# TYPE drivetrain_store_failures_total counter")
            lines += [
                f'drivetrain_store_failures_total{{{mine},reason="{reason}"}} {count}'
                for reason, count in sorted(self._store_failures.items())
            ]
            lines.append("# TYPE drivetrain_background_failures_total counter")
            lines += [
                f'drivetrain_background_failures_total{{{mine},error="{error}"}} {count}'
                for error, count in sorted(self._background_failures.items())
            ]
            lines += [
                "# TYPE drivetrain_unreadable_segments_total counter",
                f"drivetrain_unreadable_segments_total{{{mine}}} {self._unreadable}",
                "# TYPE drivetrain_explored_total counter",
                f"drivetrain_explored_total{{{mine}}} {self._explored}",
                "# TYPE drivetrain_outcomes_total counter",
                f"drivetrain_outcomes_total{{{mine}}} {self._outcomes}",
                "# TYPE drivetrain_ready gauge",
                f"drivetrain_ready{{{mine}}} {int(ready)}",
            ]
        return "\n".join(lines) + "\n"
