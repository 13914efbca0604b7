"""What the operator costs: its writes and CPU for many TrainingRuns at once, on a real etcd and kube-apiserver.

KubeRay and the drivers are stood in for by one client that writes what they would: three statuses of each RayJob, and
one report for each stage that a driver has been through. All runs are declared at once. Then, with all of them ended,
what the steady state costs: while nothing happens, when every run gets an annotation that means nothing, and when
another operator process takes over, whose first resync looks at every run once, as each later one does. Leases are left
out: they are one write every few seconds, however many runs there are.
"""

import argparse
import asyncio
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.measuring import ROOT, Tree, conditions, table
from benchmarks.ray_stand_in import NAMESPACE, RayStandIn, stand_in
from drivetrain.api.documents import JSON, documents, name_of, text, uid_of, value
from drivetrain.api.errors import DrivetrainError
from drivetrain.api.kinds import TRAINING_RUN
from drivetrain.controller.cluster.access import from_kubeconfig
from drivetrain.controller.cluster.kubernetes import KubernetesCluster, connect
from drivetrain.controller.handlers.runtime import RESYNC_SECONDS
from drivetrain.local import environment
from drivetrain.local.statedir import StateDir
from tests.support.api_server import free_ports
from tests.support.builders import a_project, a_run

NOT_NEEDED = frozenset({"mlflow", "ray", "agent", "operator", "kube-controller-manager"})
QUIET_SECONDS = 8.0
REST_SECONDS = 30.0
WRITES = ("create", "patch", "update", "delete")
_SAMPLE = re.compile(
    r'^drivetrain_api_requests_total\{verb="(\w+)",resource="([^"]+)",code="\d+"\} (\S+)$', re.MULTILINE
)
_RECONCILED = re.compile(r'^drivetrain_reconciles_total\{kind="(\w+)",result="success"\} (\S+)$', re.MULTILINE)
PROCESSES = ("operator", "kube-apiserver", "etcd")


class Operator:
    """The shipped operator process, of this checkout or another."""

    def __init__(self, state: StateDir, tree: Path = ROOT) -> None:
        (self._port,) = free_ports(1)
        flags = {"kubeconfig": state.operator_kubeconfig, "ray-image": "local", "metrics-host": "127.0.0.1"}
        told = (f"--{name}={value}" for name, value in {**flags, "metrics-port": self._port, "identity": "one"}.items())
        with state.log("measured-operator").open("ab") as log:
            command = [sys.executable, "-m", "drivetrain.controller.main", *told]
            path = {"PYTHONPATH": os.pathsep.join(str(tree / root) for root in ("operator", "pipelines", "serving"))}
            self.process = subprocess.Popen(
                command, cwd=state.root, env=os.environ | path, stdout=log, stderr=log, start_new_session=True
            )
        self.tree = Tree(self.process.pid)

    async def page(self, path: str) -> str:
        """A page of its probes; empty while nothing answers."""

        def read() -> str:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self._port}{path}", timeout=10) as answer:
                    return str(answer.read().decode())
            except OSError:
                return ""

        return await asyncio.to_thread(read)

    async def ready(self) -> None:
        """Returns when it has listed everything."""
        async with asyncio.timeout(120):
            while not await self.page("/readyz"):  # noqa: ASYNC110 - it becomes ready in another process
                await asyncio.sleep(0.1)

    async def requests(self) -> Counter[tuple[str, str]]:
        """Requests so far by verb and resource, Leases aside."""
        counted: Counter[tuple[str, str]] = Counter()
        for verb, resource, count in _SAMPLE.findall(await self.page("/metrics")):
            if resource != "leases":
                counted[verb, resource] += int(float(count))
        return counted

    async def looks(self) -> Counter[str]:
        """How often it has looked at objects so far, by kind."""
        found = _RECONCILED.findall(await self.page("/metrics"))
        return Counter({kind: int(float(count)) for kind, count in found})

    async def reconciles(self) -> int:
        """How often it has looked at a run so far."""
        return (await self.looks())[TRAINING_RUN.kind]

    async def reconciled(self, count: int, *, limit: float = 600.0) -> None:
        """Returns when it has looked at runs so many times."""
        async with asyncio.timeout(limit):
            while await self.reconciles() < count:  # noqa: ASYNC110 - it happens in another process
                await asyncio.sleep(0.2)

    async def quiet(self, *, limit: float = 900.0) -> float:
        """Returns when it has written nothing for QUIET_SECONDS: the moment of its last write."""
        written, last = -1, time.monotonic()
        async with asyncio.timeout(limit):
            while time.monotonic() - last < QUIET_SECONDS:
                now = writes(await self.requests())
                if now != written:
                    written, last = now, time.monotonic()
                await asyncio.sleep(0.5)
        return last


def writes(requests: Counter[tuple[str, str]]) -> int:
    """How many of the requests write."""
    return sum(count for (verb, _), count in requests.items() if verb in WRITES)


class Bench:
    """One run of the benchmark against a running control plane."""

    def __init__(self, state: StateDir, count: int, reports: int) -> None:
        self._state, self._count, self._reports = state, count, reports
        pids = {component.name: component.pid or 0 for component in environment.status(state)}
        self._others = (Tree(pids["kube-apiserver"]), Tree(pids["etcd"]))
        self._operator = Operator(state)

    async def run(self) -> None:
        """Prints everything."""
        try:
            async with connect(from_kubeconfig(self._state.kubeconfig), lambda *_: None) as cluster:
                await self._operator.ready()
                project = a_project().without_serving().document()
                made = await cluster.apply(project, field_manager="person")
                async with stand_in(cluster, uid_of(made), self._reports) as ray:
                    await self._operator.quiet()
                    await self._lifecycle(cluster, ray)
                    await self._steady(cluster)
            self._operator.tree.end()
            self._operator = Operator(self._state)
            await self._takeover()
        finally:
            self._operator.tree.end()

    async def _declare(self, cluster: KubernetesCluster, **metadata: JSON) -> None:
        slots = asyncio.Semaphore(16)

        async def declare(number: int) -> None:
            document = a_run(f"bench-{number:05d}").with_metadata(namespace=NAMESPACE, **metadata).document()
            async with slots:
                await cluster.apply(document, field_manager="person")

        await asyncio.gather(*(declare(number) for number in range(self._count)))

    def _cpu(self) -> list[float]:
        return [tree.seconds() for tree in (self._operator.tree, *self._others)]

    async def _lifecycle(self, cluster: KubernetesCluster, ray: RayStandIn) -> None:
        cpu, asked, theirs, began = self._cpu(), await self._operator.requests(), ray.writes, time.monotonic()
        await self._declare(cluster)
        ended = await self._operator.quiet()
        used = [now - before for now, before in zip(self._cpu(), cpu, strict=True)]
        spent = await self._operator.requests()
        spent.subtract(asked)
        await check(cluster, self._count)
        count, total, theirs = self._count, writes(spent), ray.writes - theirs
        print(
            f"{count} runs of {self._reports} reports, all complete {ended - began:.0f} s after the first was declared"
        )
        print(f"{total / count:.2f} writes of the operator a run")
        every = total + theirs + count
        print(f"all writes: {every:,}; operator {total / every:.0%}, KubeRay and drivers {theirs / every:.0%}")
        self._show(spent, used)
        memory = sum(process.memory_info().rss for process in self._operator.tree.processes()) / 2**20
        print(f"operator memory: {memory:.0f} MiB", flush=True)

    def _show(self, spent: Counter[tuple[str, str]], used: Sequence[float]) -> None:
        count = self._count
        found = sorted((*key, number) for key, number in spent.items() if number)
        lines = [(verb, resource, f"{number:,}", f"{number / count:.2f}") for verb, resource, number in found]
        print(table(("verb", "resource", "requests of the operator", "a run"), lines))
        rows = [(name, f"{each:.1f}", f"{1000 * each / count:.1f}") for name, each in zip(PROCESSES, used, strict=True)]
        print(table(("process", "CPU, s", "CPU, ms a run"), rows), flush=True)

    async def _steady(self, cluster: KubernetesCluster) -> None:
        cpu, asked, seen = self._cpu(), await self._operator.requests(), await self._operator.reconciles()
        began = time.monotonic()
        await asyncio.sleep(REST_SECONDS)
        still, seen = writes(await self._operator.requests()) - writes(asked), await self._operator.reconciles() - seen
        share = (self._cpu()[0] - cpu[0]) / (time.monotonic() - began)
        print(f"rest of {REST_SECONDS:.0f} s: {seen} looks at a run, {still} writes, {100 * share:.1f} % of a core")
        cpu, asked, seen = self._cpu(), await self._operator.requests(), await self._operator.reconciles()
        await self._declare(cluster, annotations={"noise": "1"})
        await self._operator.reconciled(seen + self._count)
        spent = await self._operator.requests()
        spent.subtract(asked)
        print(f"every run gets an annotation: {writes(spent)} writes")
        self._show(spent, [now - before for now, before in zip(self._cpu(), cpu, strict=True)])

    async def _takeover(self) -> None:
        others, began = self._cpu()[1:], time.monotonic()
        await self._operator.ready()
        start, ready = self._operator.tree.seconds(), time.monotonic() - began
        await self._operator.reconciled(self._count)
        looked, looks = time.monotonic() - began, await self._operator.reconciles()
        spent, used = await self._operator.requests(), self._cpu()
        print(
            f"another process takes over: ready after {ready:.1f} s and {start:.1f} s of CPU, "
            f"every run looked at after {looked:.1f} s, {writes(spent)} writes; "
            f"{looks} looks, because watches that begin wake some runs again"
        )
        self._show(spent, [used[0] - start, *(now - before for now, before in zip(used[1:], others, strict=True))])
        share = 100 * (used[0] - start) / looks * self._count / RESYNC_SECONDS
        print(
            f"so a resync of them all every {RESYNC_SECONDS:.0f} s keeps the operator busy for {share:.2f} % of a core"
        )


async def check(cluster: KubernetesCluster, count: int) -> None:
    """Raises DrivetrainError unless every run is complete."""
    runs = [run for run in (await cluster.list(TRAINING_RUN, NAMESPACE)).items if name_of(run).startswith("bench-")]
    open_ = [
        run for run in runs if not any(text(c, "type") == "Complete" for c in documents(run, "status", "conditions"))
    ]
    if open_ or len(runs) < count:
        why = value(open_[0], "status") if open_ else "not declared"
        raise DrivetrainError(f"{count - len(runs) + len(open_)} of {count} runs are not complete: {why}.")


def main() -> None:
    """Starts a control plane in a temporary folder, measures, stops it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int, nargs="?", default=1000, help="TrainingRuns (default: 1000)")
    parser.add_argument("--reports", type=int, default=3, help="reports of each driver (default: 3)")
    given = parser.parse_args()
    print(conditions(), flush=True)
    with tempfile.TemporaryDirectory(prefix="operator-") as folder:
        state = StateDir(Path(folder))
        try:
            environment.up(state, lambda *_: None, without=NOT_NEEDED)
            asyncio.run(Bench(state, given.count, given.reports).run())
        finally:
            environment.down(state, lambda *_: None)


if __name__ == "__main__":
    main()
