"""CPU of one /v1/decide request and row: ours, beside a plain FastAPI service and beside Ray Serve without flags.

All servers run at once, hold the same published graph and search the same 54 actions. Rounds alternate between them in
rotating order. Each measurement is the CPU of all processes of a server, while one client sends requests one after the
other and for a second after that (ours writes its decisions to the store and compares them once a second), less what
the server uses when nobody asks, which is shown apart. The client's own CPU does not count.
"""

import argparse
import http.client
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.measuring import conditions, ratios, spread, table
from benchmarks.served import Server, servers
from benchmarks.shop import ESTIMATOR, Shop, Visitors

DRAIN_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Target:
    """A server, and whether the contexts that it gets are new each time."""

    name: str
    server: Server
    fresh: bool = True


@dataclass(frozen=True, slots=True)
class Sample:
    """One round of one target."""

    milliseconds: float
    """CPU of one request."""
    latency: float
    """Median milliseconds that the client waited; says little on a machine whose client shares the cores."""
    requests: int


def ask(connection: http.client.HTTPConnection, server: Server, body: bytes) -> float:
    """Seconds until the answer is read. Raises RuntimeError unless it is 200."""
    began = time.perf_counter()
    connection.request("POST", server.path, body, server.headers)
    answer = connection.getresponse()
    content = answer.read()
    if answer.status != 200:
        raise RuntimeError(f"{server.kind} answered {answer.status}: {content[:300]!r}")
    return time.perf_counter() - began


def idle(server: Server, seconds: float) -> float:
    """CPU seconds a second while nobody asks."""
    before, began = server.tree.seconds(), time.perf_counter()
    time.sleep(seconds)
    return (server.tree.seconds() - before) / (time.perf_counter() - began)


def measure(target: Target, visitors: Visitors, seconds: float, idle_rate: float) -> Sample:
    """One round."""
    server = target.server
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    ask(connection, server, visitors.body())  # opens the connection
    before, began = server.tree.seconds(), time.perf_counter()
    waited: list[float] = []
    while time.perf_counter() - began < seconds or len(waited) < 3:
        waited.append(ask(connection, server, visitors.body()))
    time.sleep(DRAIN_SECONDS)
    used = server.tree.seconds() - before - idle_rate * (time.perf_counter() - began)
    connection.close()
    return Sample(1000 * used / len(waited), 1000 * statistics.median(waited), len(waited))


def compare(targets: list[Target], rows: int, rounds: int, seconds: float, idle_rates: dict[str, float]) -> list[str]:
    """Lines about requests of so many rows."""
    samples: dict[str, list[Sample]] = {target.name: [] for target in targets}
    crowds = {
        target.name: Visitors(rows, fresh=target.fresh, seed=rows + number) for number, target in enumerate(targets)
    }
    for number in range(rounds):
        turn = number % len(targets)
        for target in targets[turn:] + targets[:turn]:
            rate = idle_rates[target.server.kind]
            samples[target.name].append(measure(target, crowds[target.name], seconds, rate))
    costs = {name: [sample.milliseconds for sample in found] for name, found in samples.items()}
    first = costs[targets[0].name]
    lines = []
    for target in targets:
        cost, found = costs[target.name], samples[target.name]
        per_row = [1000 * each / rows for each in cost]
        told = (spread(cost), spread(per_row, 1), spread(ratios(first, cost)))
        latency = statistics.median(sample.latency for sample in found)
        asked = sum(sample.requests for sample in found)
        lines.append((f"{rows:,}", target.name, *told, f"{latency:.1f}", f"{asked:,}"))
    header = "rows a call|server|CPU ms a request|CPU us a row|ours / this|median wait, ms|requests"
    return table(header.split("|"), lines).splitlines()


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.5, help="length of one measurement (default: 1.5)")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 32, 1000], help="rows a call")
    given = parser.parse_args()
    print(conditions(), flush=True)
    with tempfile.TemporaryDirectory(prefix="decide-") as folder:
        shop = Shop(Path(folder))
        stable, model = shop.publish(1)
        with servers(("ours", "plain", "default"), model, shop) as started:
            ours, plain, default = started
            ours.configure(shop.config(stable))
            for server in started:
                server.wait(Visitors(1, fresh=True, seed=0).body())
            targets = [
                Target("ours", ours),
                Target("ours, contexts seen before", ours, fresh=False),
                Target("FastAPI + ONNX Runtime", plain),
                Target("Ray Serve, no flags", default),
            ]
            for target in targets:  # caches, lazy imports and code paths are warm before the first round
                measure(target, Visitors(max(given.rows), fresh=target.fresh, seed=7), given.seconds, 0.0)
            idle_rates = {server.kind: idle(server, 5.0) for server in started}
            shown = ", ".join(f"{kind} {100 * rate:.1f} %" for kind, rate in idle_rates.items())
            print(f"{ESTIMATOR} graph, {given.rounds} rounds; CPU of one core while nobody asks: {shown}", flush=True)
            lines: list[str] = []
            for rows in given.rows:
                found = compare(targets, rows, given.rounds, given.seconds, idle_rates)
                lines += found if not lines else found[2:]
            print("\n".join(lines))


if __name__ == "__main__":
    main()
