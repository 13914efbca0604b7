"""Subscribers come up for renewal: the endpoint decides the offer, the market answers, spending is reported."""

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import urllib3

from drivetrain.api.errors import DrivetrainError
from examples.renewals.market import (
    Subscribers,
    baseline_profit,
    best_profit,
    expected_revenue,
    profit,
    respond,
)

_AGAIN = urllib3.Retry(total=6, backoff_factor=0.25, status_forcelist=(429, 503), allowed_methods=None)
"""A busy endpoint is asked again; POST included, since a repeated outcome counts once."""


@dataclass(slots=True)
class Tally:
    """Sums over decisions, by the market's truth, USD."""

    decisions: int = 0
    expected: float = 0.0
    """Profit of the actions taken."""
    baseline: float = 0.0
    """Profit of today's policy for the same subscribers."""
    best: float = 0.0
    """Profit of the best policy for the same subscribers."""

    @property
    def share(self) -> float:
        """How much of the gap between today's and the best policy is closed."""
        return (self.expected - self.baseline) / (self.best - self.baseline)


class Renewals:
    """A call centre with its endpoint's keys (`decide`, `outcomes`). Requests raise DrivetrainError when refused."""

    def __init__(self, url: str, keys: Mapping[str, str], rng: np.random.Generator) -> None:
        self._url, self._keys, self._rng = url, keys, rng
        self._pool = urllib3.PoolManager(timeout=30.0, retries=_AGAIN)
        self._sent = 0
        self.recommended: dict[str | None, Tally] = defaultdict(Tally)
        """Decisions that neither explored nor fell back, by model version; None is today's policy."""

    def renew(self, count: int) -> None:
        """Decides for `count` subscribers (at most 1,000), lets them answer, and reports what they spent."""
        who = Subscribers.draw(count, self._rng)
        rows = who.rows(first=self._sent).to_dicts()
        self._sent += count
        decided = self.post("/v1/decide", "decide", {"rows": rows})["rows"]
        channel = np.empty(count, dtype=object)
        channel[:] = [row["action"]["channel"] for row in decided]
        credit = np.array([row["action"]["credit"] for row in decided], dtype=np.float64)
        spent = respond(who, channel, credit, self._rng).tolist()
        outcomes = [
            {"decisionId": row["decisionId"], "revenue": revenue} for row, revenue in zip(decided, spent, strict=True)
        ]
        self.post("/v1/outcomes", "outcomes", {"outcomes": outcomes})
        expected = profit(expected_revenue(who, channel, credit), channel, credit)
        truths = zip(expected.tolist(), baseline_profit(who).tolist(), best_profit(who).tolist(), strict=True)
        for row, (taken, today, best) in zip(decided, truths, strict=True):
            if row["explored"] or row["fallback"] or row["variant"] == "holdout":
                continue
            tally = self.recommended[row["modelVersion"]]
            tally.decisions += 1
            tally.expected += taken
            tally.baseline += today
            tally.best += best

    def post(self, path: str, key: str, body: object) -> Any:
        """The endpoint's answer. Raises DrivetrainError for anything but success."""
        status, answer = self.ask(path, key, body)
        if status >= 300:
            raise DrivetrainError(f"{path} answered {status}: {answer}")
        return answer

    def ask(self, path: str, key: str, body: object) -> tuple[int, Any]:
        """Status and answer."""
        headers = {"Authorization": f"Bearer {self._keys[key]}", "Content-Type": "application/json"}
        response = self._pool.request("POST", self._url + path, body=json.dumps(body).encode(), headers=headers)
        return response.status, json.loads(response.data)
