"""Visitors: they ask the endpoint for prices, answer as the market says, and some of their answers come late."""

import heapq
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import orjson
import urllib3
from numpy.typing import NDArray

from drivetrain.api.errors import DrivetrainError
from examples.orange_juice.history import visits
from examples.orange_juice.market import Contexts, Grid, Market, Policy, best_policy, shelf_policy

Floats: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]
Outcomes: TypeAlias = Sequence[Mapping[str, object]]

BATCH = 500
LATE_SHARE = 0.2
"""Outcomes reported up to LATE_SECONDS after the decision; the others at once."""
LATE_SECONDS = 1.5
CORRECTION_SHARE = 0.005
"""Outcomes reported only after they matured: corrections."""
CORRECTION_SECONDS = 8.0
PATIENCE_SECONDS = 300.0
"""A visitor outwaits a restart of Ray, in which Serve first refuses, then knows no route, then has no replica."""
_LAST_SECONDS = 15.0
"""Once the shop is closed."""
_PAUSE_SECONDS = 4.0


class EndpointError(DrivetrainError):
    """The endpoint answered a visitor with an error."""


@dataclass(slots=True)
class Visits:
    """Sums over decisions, and what the market's truth says of them, in USD."""

    decisions: int = 0
    realised: float = 0.0
    promised: float = 0.0
    expected: float = 0.0
    """Expected margin of the actions taken."""
    shelf: float = 0.0
    """Expected margin of shelf prices for the same visits."""
    oracle: float = 0.0
    """Expected margin of the oracle without loyalty."""
    loyal_oracle: float = 0.0
    """Expected margin of the oracle with loyalty."""

    @property
    def regret(self) -> float:
        """What the oracle with loyalty earns more, USD a decision."""
        return (self.loyal_oracle - self.expected) / self.decisions


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch of visitors; money in USD a visit."""

    at: float
    decisions: int
    realised: float
    shelf: float
    """What shelf prices would have earned."""
    surprise: float
    """Realised minus promised, over decisions that promised something; NaN where none did."""


@dataclass(slots=True)
class Record:
    """What the traffic has seen. Keys are (model version or "", epoch of the market)."""

    recommended: dict[tuple[str, int], Visits] = field(default_factory=lambda: defaultdict(Visits))
    """Decisions that did not explore, of each version."""
    failed_requests: int = 0
    retried_requests: int = 0
    cards: list[tuple[str, float]] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)
    promised_and_realised: list[tuple[float, float]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Truth:
    """The market's truth for every distinct context, computed once per epoch."""

    market: Market
    shelf: Floats
    oracle: Floats
    loyal_oracle: Floats

    @classmethod
    def of(cls, market: Market, contexts: Contexts, grid: Grid) -> "_Truth":
        def earned(policy: Policy) -> Floats:
            bought = market.purchase_probability(contexts, policy.price, policy.discount)
            return np.asarray(bought * market.margin(policy.price, policy.discount))

        return cls(
            market,
            earned(shelf_policy(contexts, grid)),
            earned(best_policy(market, contexts, grid, sees_loyalty=False)),
            earned(best_policy(market, contexts, grid, sees_loyalty=True)),
        )


class Traffic:
    """A thread that sends visitors until it is stopped. Change `market` and `sends_loyalty` while it runs."""

    def __init__(
        self, url: str, *, keys: Mapping[str, str], contexts: Contexts, market: Market, seed: int, rate: float
    ) -> None:
        self._url = url
        self._keys = keys
        self._contexts = contexts
        self._grid = Grid()
        self._rng = np.random.default_rng(seed)
        self._rate = rate
        self._pool = urllib3.PoolManager(maxsize=4, timeout=30.0, retries=False)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="visitors", daemon=True)
        self._late: list[tuple[float, int, Outcomes]] = []
        self._sent = 0
        self._truth = _Truth.of(market, contexts, self._grid)
        self.epoch = 0
        self.sends_loyalty = False
        self.record = Record()
        self.failure: BaseException | None = None

    def start(self) -> None:
        """Begins to send visitors."""
        self._thread.start()

    def stop(self) -> None:
        """Sends no more visitors, and reports what is still due. What made the thread fail is in `failure`."""
        self._stop.set()
        self._thread.join()

    def check(self) -> None:
        """Raises what made the thread fail, if anything did."""
        if self.failure is not None:
            raise self.failure

    def change(self, market: Market) -> None:
        """From the next visitor on, customers are those of another market; the mix of contexts stays."""
        self._truth = _Truth.of(market, self._contexts, self._grid)
        self.epoch += 1

    @property
    def decisions(self) -> int:
        """Decisions asked for so far."""
        return self._sent

    def of(self, version: str | None, epoch: int) -> Visits:
        """Decisions of a version (None: today's policy) that did not explore, in one epoch of the market."""
        return self.record.recommended[version or "", epoch]

    def cards(self) -> list[tuple[str, float]]:
        """Visit and loyalty of everyone who came so far."""
        return list(self.record.cards)

    def surface(self) -> list[Mapping[str, float]]:
        """What the stable version expects of every grid action for one visitor: price, discount, value in USD."""
        row = visits(self._contexts.take(np.array([0])), "shown").to_dicts()[0]
        if self.sends_loyalty:
            row["loyalty"] = float(self._contexts.loyalty[0])
        actions = [
            {"price": price, "discount": discount}
            for price, discount in zip(self._grid.price.tolist(), self._grid.discount.tolist(), strict=True)
        ]
        simulated = self._post("/v1/simulate", "decide", {"rows": [row], "actions": actions})["rows"][0]
        values = simulated["expectedValue"]
        return [{**action, "value": float(value)} for action, value in zip(actions, values, strict=True)]

    def _run(self) -> None:
        try:
            due = time.monotonic()
            while not self._stop.is_set():
                self._visit()
                self._report_due(time.monotonic())
                due = max(due + BATCH / self._rate, time.monotonic() - 1.0)
                self._stop.wait(max(0.0, due - time.monotonic()))
            self._report_due(float("inf"))
        except BaseException as error:  # handed to the main thread by check()
            self.failure = error

    def _visit(self) -> None:
        chosen = self._rng.integers(len(self._contexts), size=BATCH)
        contexts, truth, epoch = self._contexts.take(chosen), self._truth, self.epoch
        frame = visits(contexts, "visit", first=self._sent)
        rows = frame.to_dicts()
        if self.sends_loyalty:
            for row, loyalty in zip(rows, contexts.loyalty.tolist(), strict=True):
                row["loyalty"] = loyalty
        decided = self._post("/v1/decide", "decide", {"rows": rows})["rows"]
        self._sent += BATCH
        price = np.array([row["action"]["price"] for row in decided])
        discount = np.array([row["action"]["discount"] for row in decided])
        bought = truth.market.respond(contexts, price, discount, self._rng)
        expected = truth.market.purchase_probability(contexts, price, discount) * truth.market.margin(price, discount)
        realised = bought * truth.market.margin(price, discount)
        self._record(decided, chosen, truth=truth, epoch=epoch, expected=expected, realised=realised)
        self.record.cards += zip(frame["visit_id"].to_list(), contexts.loyalty.tolist(), strict=True)
        outcomes = [
            {"decisionId": row["decisionId"], "purchase": bool(sold)}
            for row, sold in zip(decided, bought.tolist(), strict=True)
        ]
        lateness = self._rng.random(BATCH)
        now = time.monotonic()
        late = [outcome for outcome, draw in zip(outcomes, lateness, strict=True) if draw < LATE_SHARE]
        corrections = round(CORRECTION_SHARE * BATCH)
        self._defer(now + CORRECTION_SECONDS, late[:corrections])
        self._defer(now + float(self._rng.uniform(0.2, LATE_SECONDS)), late[corrections:])
        self._outcomes([outcome for outcome, draw in zip(outcomes, lateness, strict=True) if draw >= LATE_SHARE])

    def _record(
        self,
        decided: list[Mapping[str, Any]],
        chosen: Integers,
        *,
        truth: _Truth,
        epoch: int,
        expected: Floats,
        realised: Floats,
    ) -> None:
        for index, row in enumerate(decided):
            if row["explored"] or row["fallback"] or row["variant"] == "holdout":
                continue
            tally = self.record.recommended[row["modelVersion"] or "", epoch]
            tally.decisions += 1
            tally.realised += float(realised[index])
            tally.promised += float(row["expectedValue"] or 0.0)
            tally.expected += float(expected[index])
            tally.shelf += float(truth.shelf[chosen[index]])
            tally.oracle += float(truth.oracle[chosen[index]])
            tally.loyal_oracle += float(truth.loyal_oracle[chosen[index]])
            if row["expectedValue"] is not None and index % 10 == 0:
                self.record.promised_and_realised.append((float(row["expectedValue"]), float(realised[index])))
        shelf = float(truth.shelf[chosen].mean())
        promised = np.array([np.nan if row["expectedValue"] is None else row["expectedValue"] for row in decided])
        known = np.isfinite(promised)
        surprise = float((realised - promised)[known].mean()) if known.any() else float("nan")
        self.record.batches.append(Batch(time.time(), len(decided), float(realised.mean()), shelf, surprise))

    def _defer(self, at: float, outcomes: Outcomes) -> None:
        if outcomes:
            heapq.heappush(self._late, (at, self._sent, outcomes))

    def _report_due(self, now: float) -> None:
        while self._late and self._late[0][0] <= now:
            self._outcomes(heapq.heappop(self._late)[2])

    def _outcomes(self, outcomes: Outcomes) -> None:
        if outcomes:
            self._post("/v1/outcomes", "outcomes", {"outcomes": outcomes})

    def _post(self, path: str, key: str, body: object) -> Any:
        """Asks until it is answered: who finds the connection broken or the shop shut tries again."""
        payload = orjson.dumps(body)
        headers = {"Authorization": f"Bearer {self._keys[key]}", "Content-Type": "application/json"}
        began, pause = time.monotonic(), 0.25
        while True:
            try:
                response = self._pool.request("POST", self._url + path, body=payload, headers=headers)
            except urllib3.exceptions.HTTPError:
                self.record.retried_requests += 1
            else:
                if response.status < 300:
                    return orjson.loads(response.data)
                self.record.failed_requests += 1
                if response.status < 500 and response.status not in (404, 429):
                    raise EndpointError(f"{path} answered {response.status}: {response.data[:500]!r}")
            waited = time.monotonic() - began
            if waited > (_LAST_SECONDS if self._stop.is_set() else PATIENCE_SECONDS):
                raise EndpointError(
                    f"{path} did not answer for {waited:.0f} s.", remedy="See `drivetrain components ray`."
                )
            time.sleep(pause)
            pause = min(2 * pause, _PAUSE_SECONDS)
