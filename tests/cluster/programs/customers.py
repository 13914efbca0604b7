"""The renewals example's customers in a Pod: `customers.py URL`, until /tmp/stop is there.

Asks for decisions, lets the subscribers answer, and reports what they spent; the market lies beside this program. How
much of their spending is left is read from /tmp/spending. Prints what came of it as a line of JSON every few seconds.
"""

import json
import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import market  # type: ignore[import-not-found]  # lies beside this program in its Pod
import numpy as np
import urllib3

BATCH, EVERY_SECONDS, TOLD_SECONDS = 400, 0.5, 2.0


class Endpoint:
    """Asks again until it is answered, and keeps what went wrong meanwhile."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._pool = urllib3.PoolManager(timeout=20.0, retries=False)
        self.asked = 0
        self.failures: Counter[str] = Counter()

    def __call__(self, path: str, key: str, body: object) -> Any:
        """The answer, or None once it is time to stop."""
        while not Path("/tmp/stop").exists():
            self.asked += 1
            try:
                answer = self._pool.request(
                    "POST",
                    self._url + path,
                    body=json.dumps(body).encode(),
                    headers={"Authorization": f"Bearer {os.environ[key]}", "Content-Type": "application/json"},
                )
            except urllib3.exceptions.HTTPError as error:
                self.failures[type(error).__name__] += 1
            else:
                if answer.status < 300:
                    return json.loads(answer.data)
                self.failures[f"{answer.status} {answer.data[:200].decode()}"] += 1
            time.sleep(EVERY_SECONDS)
        return None


def spending() -> float:
    """The share of today's spending that is left."""
    told = Path("/tmp/spending")
    return float(told.read_text()) if told.exists() else 1.0


def main(url: str) -> None:
    """Renews subscriptions at a steady rate."""
    rng = np.random.default_rng(21)
    ask = Endpoint(url)
    decided: Counter[str] = Counter()
    outcomes, told = 0, 0.0
    while not Path("/tmp/stop").exists():
        began = time.monotonic()
        who = market.Subscribers.draw(BATCH, rng)
        rows = who.rows(first=decided.total()).to_dicts()
        answer = ask("/v1/decide", "DECIDE", {"rows": rows})
        if answer is None:
            break
        found = answer["rows"]
        channel = np.empty(BATCH, dtype=object)
        channel[:] = [row["action"]["channel"] for row in found]
        credit = np.array([row["action"]["credit"] for row in found], dtype=np.float64)
        spent = (market.respond(who, channel, credit, rng) * spending()).round(2).tolist()
        reported = [{"decisionId": row["decisionId"], "revenue": each} for row, each in zip(found, spent, strict=True)]
        if ask("/v1/outcomes", "OUTCOMES", {"outcomes": reported}) is not None:
            outcomes += BATCH
        decided.update(str(row["modelVersion"]) for row in found)
        if time.monotonic() > told + TOLD_SECONDS or Path("/tmp/stop").exists():
            told = time.monotonic()
            line = {"asked": ask.asked, "failures": ask.failures, "decided": decided, "outcomes": outcomes}
            sys.stdout.write(json.dumps(line) + "\n")
            sys.stdout.flush()
        time.sleep(max(0.0, began + EVERY_SECONDS - time.monotonic()))


if __name__ == "__main__":
    main(sys.argv[1])
