"""The worst wait during a rollout, as a ratio to an equally long quiet stretch of the same run.

Requests of one row come at a fixed rate, whatever the endpoint does, and each is timed from the moment at which it was
due, so that a stall counts for everybody who would have come meanwhile. A rollout is what the operator does: the
candidate is loaded, gets 10, 25 and 50 %, and becomes stable. Quiet stretches and rollouts alternate, each rollout with
a model of its own, and a rollout in which any request failed ends the run.
"""

import argparse
import http.client
import itertools
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import orjson

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.measuring import conditions, ratios, spread, table
from benchmarks.served import Server, servers
from benchmarks.shop import Shop, Visitors

CLIENTS = 4
WEIGHTS = (10, 25, 50)


class Arrivals:
    """Clients that share one schedule of requests, from entering the context until it is left."""

    def __init__(self, server: Server, rate: float, seed: int) -> None:
        self.waited: list[float] = []
        """Milliseconds from when each request was due to its answer."""
        self.answers: set[int] = set()
        self.policies: set[str] = set()
        """Hashes of the policies that decided."""
        self._server, self._rate = server, rate
        self._visitors = Visitors(1, fresh=True, seed=seed)
        self._guard, self._stop = threading.Lock(), threading.Event()
        self._next = 0
        self._began = 0.0
        self._threads = [threading.Thread(target=self._come) for _ in range(CLIENTS)]

    def __enter__(self) -> "Arrivals":
        self._began = time.perf_counter() + 0.05
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _come(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._server.port, timeout=60)
        while not self._stop.is_set():
            with self._guard:
                due = self._began + self._next / self._rate
                self._next += 1
                body = self._visitors.body()
            time.sleep(max(0.0, due - time.perf_counter()))
            connection.request("POST", self._server.path, body, self._server.headers)
            answer = connection.getresponse()
            content = answer.read()
            waited = 1000 * (time.perf_counter() - due)
            with self._guard:
                self.waited.append(waited)
                self.answers.add(answer.status)
                if answer.status == 200:
                    self.policies.add(orjson.loads(content)["rows"][0]["policy"])
        connection.close()


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="rollouts, each beside a quiet stretch (default: 7)")
    parser.add_argument("--replicas", type=int, default=1, help="replicas of the endpoint (default: 1)")
    parser.add_argument("--rate", type=float, default=100.0, help="requests a second (default: 100)")
    parser.add_argument("--step", type=float, default=2.0, help="seconds after each change (default: 2)")
    parser.add_argument("--load", type=float, default=8.0, help="seconds for the load (default: 8)")
    given = parser.parse_args()
    print(conditions(), flush=True)
    length = given.load + given.step * (len(WEIGHTS) + 1)
    quiet: list[list[float]] = []
    rolled: list[list[float]] = []
    with tempfile.TemporaryDirectory(prefix="rollout-") as folder:
        shop = Shop(Path(folder))
        policies = [shop.publish(seed)[0] for seed in range(given.rounds + 1)]
        with servers(("ours",), Path(folder), shop, replicas=given.replicas) as (ours,):
            ours.configure(shop.config(policies[0]))
            ours.wait(Visitors(1, fresh=True, seed=0).body())
            with Arrivals(ours, given.rate, 1):
                time.sleep(3.0)  # the first requests of a process are its slowest
            for number, (stable, candidate) in enumerate(itertools.pairwise(policies)):
                with Arrivals(ours, given.rate, 100 + number) as calm:
                    time.sleep(length)
                with Arrivals(ours, given.rate, 200 + number) as busy:
                    loading = shop.config(stable, load=(candidate,))
                    ours.configure(loading)
                    time.sleep(given.load)
                    for weight in WEIGHTS:
                        told = {"candidate": candidate, "weight": weight, "rollout": f"r{number}"}
                        ours.configure(loading.model_copy(update=told))
                        time.sleep(given.step)
                    ours.configure(shop.config(candidate))
                    time.sleep(given.step)
                if calm.answers | busy.answers != {200}:
                    raise RuntimeError(f"answers other than 200: {sorted(calm.answers | busy.answers)}")
                if candidate not in busy.policies:
                    raise RuntimeError(f"the candidate decided nothing: it needs more than {given.load:g} s to load")
                quiet.append(calm.waited)
                rolled.append(busy.waited)
    served = f"{given.replicas} replicas, {given.rate:.0f} requests/s"
    print(f"{given.rounds} rollouts of {length:.0f} s at {served}: no request failed")

    def row(name: str, at: float) -> tuple[str, str, str, str]:
        pair = [[sorted(waited)[int(at * (len(waited) - 1))] for waited in each] for each in (quiet, rolled)]
        return name, spread(pair[0], 1), spread(pair[1], 1), spread(ratios(pair[1], pair[0]))

    lines = [row("median", 0.5), row("99 %", 0.99), row("worst", 1.0)]
    print(table(("wait, ms", "quiet", "during a rollout", "ratio"), lines))
    requests = statistics.median(len(each) for each in rolled)
    print(f"{requests:.0f} requests a stretch")


if __name__ == "__main__":
    main()
