"""What an endpoint under traffic costs: requests for each report of its Monitor, on a real etcd and kube-apiserver.

One project with one Deployment; KubeRay and the Monitor are stood in for by one client, which calls the RayService
ready and then reports every second, each time with another KPI over more decisions. With `--beside FOLDER` the operator
of another checkout of this repository is measured in turn with this one, and the ratio is taken round by round. That
a report comes every second is the benchmark's doing: a Monitor reports numbers ten times a window, see the last table.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.measuring import ROOT, Tree, conditions, ratios, spread, table
from benchmarks.training_runs import NOT_NEEDED, Operator, writes
from drivetrain.api.canonical import canonical_json
from drivetrain.api.documents import Document, name_of
from drivetrain.api.kinds import CONFIG_MAP, RAY_SERVICE
from drivetrain.api.names import report_name
from drivetrain.api.report import KpiEvidence, ServingReport
from drivetrain.api.v1alpha1.rollout import Monitoring
from drivetrain.controller.cluster.access import from_kubeconfig
from drivetrain.controller.cluster.kubernetes import KubernetesCluster, connect
from drivetrain.local import environment
from drivetrain.local.statedir import StateDir
from drivetrain.serving.pacing import pace
from tests.support.builders import a_project

NAMESPACE = "default"
CLUSTER = "shop-cluster"
WINDOWS = {"30 s": 30, "1 min": 60, "5 min or more": 300}


async def serve(cluster: KubernetesCluster) -> None:
    """Declares the project, and calls its RayService ready once it is there."""
    await cluster.apply(a_project().document(), field_manager="person")
    async with asyncio.timeout(60):
        while not (found := (await cluster.list(RAY_SERVICE, NAMESPACE)).items):  # noqa: ASYNC110 - another process makes it
            await asyncio.sleep(0.2)
    head = {key: found[0][key] for key in ("apiVersion", "kind")}
    metadata: Document = {"name": name_of(found[0]), "namespace": NAMESPACE}
    ready: Document = {"type": "Ready", "status": "True", "reason": "NonZeroServeEndpoints"}
    condition = {**ready, "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    status: Document = {"activeServiceStatus": {"rayClusterName": CLUSTER}, "conditions": [condition]}
    await cluster.apply_status({**head, "metadata": metadata, "status": status}, field_manager="kuberay")


def told(number: int) -> ServingReport:
    """What the Monitor tells after more decisions have matured."""
    kpi = KpiEvidence(mean=0.5 + number % 400 / 1000, decisions=1000 + number)
    now = datetime.fromtimestamp(time.time(), UTC)
    return ServingReport(sequence=number, at=now, replicas=1, weight=0, kpi=kpi, matured=1000 + number, watermark=now)


async def report(cluster: KubernetesCluster, number: int) -> None:
    """Writes it as the Monitor does."""
    metadata: Document = {"name": report_name("Deployment", "shop"), "namespace": NAMESPACE}
    document: Document = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}
    await cluster.apply({**document, "data": {CLUSTER: canonical_json(told(number))}}, field_manager="monitor")


class Bench:
    """One run of the benchmark against a running control plane."""

    def __init__(self, state: StateDir, count: int, every: float) -> None:
        self._state, self._count, self._every, self._told = state, count, every, 0
        pids = {component.name: component.pid or 0 for component in environment.status(state)}
        self._server = Tree(pids["kube-apiserver"])

    async def measure(self, tree: Path) -> dict[str, float]:
        """Plays the reports to the operator of a checkout; what each of them cost."""
        operator = Operator(self._state, tree)
        try:
            async with connect(from_kubeconfig(self._state.kubeconfig), lambda *_: None) as cluster:
                await operator.ready()
                if not (await cluster.list(CONFIG_MAP, NAMESPACE)).items:
                    await serve(cluster)
                await self._report(cluster)
                await operator.quiet()
                asked, looks, cpu = await operator.requests(), await operator.looks(), self._cpu(operator)
                for _ in range(self._count):
                    await self._report(cluster)
                    await asyncio.sleep(self._every)
                await operator.quiet()
                used = [now - before for now, before in zip(self._cpu(operator), cpu, strict=True)]
                spent, looks = await operator.requests(), await operator.looks() - looks
                spent.subtract(asked)
        finally:
            operator.tree.end()
        reads = sum(spent.values()) - writes(spent) - sum(spent[key] for key in spent if key[0] == "watch")
        found: dict[str, float] = {"requests that read": reads, "writes": writes(spent)}
        found |= {f"looks at a {kind}": looks[kind] for kind in ("Deployment", "DrivetrainProject")}
        found |= {"CPU of the operator, ms": 1000 * used[0], "CPU of kube-apiserver, ms": 1000 * used[1]}
        return {name: number / self._count for name, number in found.items()}

    def _cpu(self, operator: Operator) -> list[float]:
        return [operator.tree.seconds(), self._server.seconds()]

    async def _report(self, cluster: KubernetesCluster) -> None:
        self._told += 1
        await report(cluster, self._told)


async def run(state: StateDir, trees: list[Path], rounds: int, count: int, every: float) -> None:
    """Measures each checkout in turn, and prints everything."""
    bench = Bench(state, count, every)
    found: list[list[dict[str, float]]] = [[] for _ in trees]
    for _ in range(rounds):
        for measured, tree in zip(found, trees, strict=True):
            measured.append(await bench.measure(tree))
    names = ("this checkout", *(["beside it", "this / beside"] if len(trees) > 1 else []))
    rows = []
    for part in found[0][0]:
        sides = [[each[part] for each in measured] for measured in found]
        cells = [spread(side) for side in sides]
        rows.append((part, *cells, *([spread(ratios(*sides))] if len(sides) > 1 else [])))
    print(f"{rounds} rounds of {count} reports, one every {every:g} s; each report costs")
    print(table(("", *names), rows))
    asked = sum(each["requests that read"] + each["writes"] for each in found[0]) / rounds
    paces = []
    for window, seconds in WINDOWS.items():
        minutely = 60 / pace(told(1), Monitoring(window=timedelta(seconds=seconds))).total_seconds()
        paces.append((window, f"{minutely:g}", f"{minutely * asked:.0f}"))
    print(table(("monitoring.window", "reports of numbers a minute", "requests a minute"), paces), flush=True)


def main() -> None:
    """Starts a control plane in a temporary folder, measures, stops it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=60, help="reports of a round (default: 60)")
    parser.add_argument("--every", type=float, default=1.0, help="seconds between two reports (default: 1)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds (default: 3)")
    parser.add_argument("--beside", type=Path, help="another checkout, whose operator is measured too")
    given = parser.parse_args()
    print(conditions(), flush=True)
    with tempfile.TemporaryDirectory(prefix="reports-") as folder:
        state = StateDir(Path(folder))
        try:
            environment.up(state, lambda *_: None, without=NOT_NEEDED)
            trees = [ROOT, *([given.beside.resolve()] if given.beside else [])]
            asyncio.run(run(state, trees, given.rounds, given.count, given.every))
        finally:
            environment.down(state, lambda *_: None)


if __name__ == "__main__":
    main()
