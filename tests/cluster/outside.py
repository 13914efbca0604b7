"""An endpoint and a store as they are reached from outside the cluster, through kubectl port-forward."""

import io
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import urllib3

from drivetrain.api.decision_log import DECISION_ID
from examples.renewals.market import Subscribers
from tests.cluster.forwarding import forwarded
from tests.cluster.teams import Team


@dataclass(frozen=True, slots=True)
class Store:
    """A project's store as its team reads it."""

    _s3: Any
    _bucket: str
    _prefix: str

    @classmethod
    @contextmanager
    def of(cls, team: Team, project: str) -> Iterator["Store"]:
        """With the team's own key; one connection."""
        with team.s3() as client:
            yield cls(client, team.name, f"{project}/")

    def below(self, prefix: str = "") -> list[str]:
        """What lies below a key of the project; all of it."""
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix + prefix)
        return [found["Key"] for page in pages for found in page.get("Contents", ())]

    def get(self, key: str) -> bytes:
        """An object."""
        content: bytes = self._s3.get_object(Bucket=self._bucket, Key=key)["Body"].read()
        return content

    def decisions(self, prefix: str) -> set[str]:
        """The decisions that a part of the log speaks of."""
        tables = [pq.read_table(io.BytesIO(self.get(key)), columns=[DECISION_ID]) for key in self.below(prefix)]
        return {found for table in tables for found in table.column(DECISION_ID).to_pylist()}


@dataclass(slots=True)
class Caller:
    """A call centre that asks and reports once, and keeps what it was told."""

    url: str
    keys: Mapping[str, str]
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(5))
    asked: list[int] = field(default_factory=list)
    """What asking for decisions was answered with."""
    decided: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    """Decisions whose outcome is not acknowledged yet."""
    reported: list[str] = field(default_factory=list)
    refusals: set[str] = field(default_factory=set)

    @classmethod
    @contextmanager
    def of(cls, team: Team, endpoint: str) -> Iterator["Caller"]:
        """With the team's own keys; one connection."""
        with forwarded(team.kubectl, f"service/{endpoint}", 8000) as url:
            yield cls(url, team.secret("renewals-keys"))

    def decide(self, count: int) -> None:
        """Asks for some subscribers; what they spend is not known yet."""
        rows = Subscribers.draw(count, self.rng).rows(first=len(self.decided)).to_dicts()
        status, answer = self._post("/v1/decide", "decide", {"rows": rows})
        self.asked.append(status)
        if status == 200:
            ids = [row["decisionId"] for row in answer["rows"]]
            self.decided += ids
            self.waiting += ids

    def report(self) -> None:
        """Reports everything that is not acknowledged yet."""
        if not self.waiting:
            return
        outcomes = [{"decisionId": each, "revenue": 20.0} for each in self.waiting]
        status, answer = self._post("/v1/outcomes", "outcomes", {"outcomes": outcomes})
        if status == 200:
            self.reported += self.waiting
            self.waiting = []
        else:
            self.refusals.add(answer["error"]["reason"])

    def _post(self, path: str, key: str, body: object) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {self.keys[key]}"}
        answer = urllib3.request(
            "POST", self.url + path, json=body, headers=headers, timeout=60.0, retries=urllib3.Retry(0)
        )
        return answer.status, answer.json()


class Steady:
    """Asks for a decision every second, over another connection whenever one broke, for as long as it is entered."""

    def __init__(self, team: Team, endpoint: str) -> None:
        self._team, self._endpoint = team, endpoint
        self.answers = 0
        self.longest_gap = 0.0
        """Seconds between two answers, at most; connections that break are part of it."""
        self._latest: float | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Steady":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(1):
            try:
                self._ask_while_answered()
            except (AssertionError, urllib3.exceptions.HTTPError, ValueError):  # no Pod, no answer, no JSON: come again
                continue

    def _ask_while_answered(self) -> None:
        with Caller.of(self._team, self._endpoint) as calls:
            while not self._stop.wait(1):
                calls.decide(1)
                if calls.asked[-1] != 200:
                    return
                now = monotonic()
                self.longest_gap = max(self.longest_gap, now - (self._latest or now))
                self._latest = now
                self.answers += 1
