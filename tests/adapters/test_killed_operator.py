"""The real operator process on a real API server: killed again and again, it ends in an undisturbed one's world."""

import asyncio
import json
import re
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen

import aiohttp
import pytest
import yaml

from drivetrain.api.documents import Document, documents, labels_of, name_of, text, uid_of
from drivetrain.api.errors import ClusterError
from drivetrain.api.kinds import (
    CONFIG_MAP,
    DEPLOYMENT,
    DRIVETRAIN_PROJECT,
    OWN_KINDS,
    RAY_JOB,
    RAY_SERVICE,
    ROLE,
    ROLE_BINDING,
    SERVICE,
    SERVICE_ACCOUNT,
    TRAINING_RUN,
    Kind,
)
from drivetrain.controller.cluster.access import from_kubeconfig
from drivetrain.controller.cluster.kubernetes import KubernetesCluster, connect
from tests.support.api_proxy import Proxy, proxied
from tests.support.api_server import ApiServer, free_ports
from tests.support.builders import a_project
from tests.support.stand_ins import stand_in

pytestmark = pytest.mark.binaries

ROOT = Path(__file__).parents[2]
DEADLINE = 180.0
QUIET = 3.0
"""Seconds without a write after which the operator is done; a project's first children take it less than one."""

KINDS = (
    *(DRIVETRAIN_PROJECT, TRAINING_RUN, DEPLOYMENT, RAY_JOB, RAY_SERVICE),
    *(CONFIG_MAP, SERVICE, SERVICE_ACCOUNT, ROLE, ROLE_BINDING),
)


@pytest.fixture
async def cluster(api_server: ApiServer) -> AsyncIterator[KubernetesCluster]:
    """The API server with our definitions and stand-ins for KubeRay's."""
    async with connect(from_kubeconfig(api_server.kubeconfig), lambda *_: None) as cluster:
        for file in (ROOT / "crds").glob("*.yaml"):
            await cluster.apply(yaml.safe_load(file.read_text()))
        for kind in (RAY_JOB, RAY_SERVICE):
            await cluster.apply(stand_in(kind))
        async with asyncio.timeout(DEADLINE):
            for kind in (*OWN_KINDS, RAY_JOB, RAY_SERVICE):
                while not await _lists(cluster, kind):  # noqa: ASYNC110 - the API server tells nobody when it is ready
                    await asyncio.sleep(0.1)
        yield cluster


async def _lists(cluster: KubernetesCluster, kind: Kind) -> bool:
    try:
        await cluster.list(kind)
    except ClusterError:
        return False
    return True


@dataclass
class Supervised:
    """An operator for one namespace behind a proxy that kills it at its 3rd write, the next at its 4th, 5th, 3rd ..."""

    namespace: str
    folder: Path
    kills: bool
    process: Popen[bytes] | None = None
    port: int = 0
    ready_at: float | None = None
    writes_since_start: int = 0
    killed: int = 0

    def strike(self, _: int) -> bool:
        """See Proxy; the answer to the last write is lost with the process."""
        self.writes_since_start += 1
        if not self.kills or self.process is None or self.writes_since_start < 3 + self.killed % 3:
            return False
        self.process.kill()
        self.killed += 1
        return True

    def start(self, config: Path) -> None:
        """Start it, again."""
        (self.port,) = free_ports(1)
        self.ready_at, self.writes_since_start = None, 0
        command = [
            *(sys.executable, "-m", "drivetrain.controller.main", "--kubeconfig", str(config)),
            *("--namespaces", self.namespace, "--lease-namespace", self.namespace, "--ray-image", "ray:test"),
            # One name for all: the one before is known to be dead, so nobody has to wait for its lease.
            *("--identity", "only", "--metrics-host", "127.0.0.1", "--metrics-port", str(self.port)),
        ]
        with (self.folder / f"{self.namespace}.log").open("ab") as log:
            self.process = Popen(command, stdout=log, stderr=log, cwd=ROOT)

    async def is_ready(self, session: aiohttp.ClientSession) -> bool:
        """Return whether it has listed everything."""
        try:
            async with session.get(f"http://127.0.0.1:{self.port}/readyz") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False

    def is_quiet(self, last_write: float) -> bool:
        """Return whether it is up and has written nothing for a while."""
        return self.ready_at is not None and time.monotonic() - max(self.ready_at, last_write) > QUIET


async def settle(
    server: ApiServer, cluster: KubernetesCluster, namespace: str, folder: Path, *, kills: bool
) -> tuple[Proxy, int]:
    """Declare a project, let the operator work until it is quiet; return what went through and how often it died."""
    await cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    operator = Supervised(namespace, folder, kills)
    async with proxied(server, operator.strike) as proxy, aiohttp.ClientSession() as session:
        config = a_kubeconfig(proxy, folder / f"{namespace}.kubeconfig")
        await cluster.apply(a_project(namespace=namespace).document(), field_manager="person")
        try:
            async with asyncio.timeout(DEADLINE):
                while not operator.is_quiet(proxy.last_write):
                    if operator.process is None or operator.process.poll() is not None:
                        operator.start(config)
                    if operator.ready_at is None and await operator.is_ready(session):
                        operator.ready_at = time.monotonic()
                    await asyncio.sleep(0.05)
        finally:
            if operator.process is not None:
                operator.process.kill()
                operator.process.wait()
    return proxy, operator.killed


def a_kubeconfig(proxy: Proxy, path: Path) -> Path:
    config = {
        "current-context": "proxy",
        "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "admin"}}],
        "clusters": [{"name": "proxy", "cluster": {"server": proxy.url}}],
        "users": [{"name": "admin", "user": {"token": proxy.server.token}}],
    }
    path.write_text(json.dumps(config))
    return path


async def world(cluster: KubernetesCluster, namespace: str) -> list[str]:
    """Return every object of a namespace, without uids, times, hashes, addresses and the namespace's own name."""
    found = [each for kind in KINDS for each in (await cluster.list(kind, namespace)).items]
    shown = []
    for each in found:
        kept = {key: each[key] for key in ("spec", "data", "rules", "roleRef", "subjects", "status") if key in each}
        content = json.dumps(kept | {"labels": labels_of(each), "owners": _owners(each)}, sort_keys=True)
        content = f"{text(each, 'kind')} {name_of(each)} {content}"
        for other in found:
            content = content.replace(uid_of(other), text(other, "kind"))
        for pattern, word in _ACCIDENTAL.items():
            content = re.sub(pattern, word, content)
        shown.append(content.replace(namespace, "<namespace>"))
    return sorted(shown)


_ACCIDENTAL = {
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[.\d]*(Z|\+00:00)": "<time>",
    r"\b10\.96\.\d+\.\d+": "<address>",
    # Hashes of what names the namespace or a uid, also in names of revisions.
    r"\b[0-9a-f]{12,64}\b|(?<=shop-)[0-9a-f]{6}\b": "<hash>",
}


def _owners(document: Document) -> list[str]:
    return [text(each, "uid") for each in documents(document, "metadata", "ownerReferences")]


async def test_an_operator_that_is_killed_at_its_writes_ends_in_the_world_of_an_undisturbed_one(
    api_server: ApiServer, cluster: KubernetesCluster, tmp_path: Path
) -> None:
    calm, _ = await settle(api_server, cluster, "calm", tmp_path, kills=False)
    storm, killed = await settle(api_server, cluster, "storm", tmp_path, kills=True)
    wanted = await world(cluster, "calm")
    assert {"RayJob", "RayService", "TrainingRun", "Deployment"} <= {each.split()[0] for each in wanted}
    assert await world(cluster, "storm") == wanted
    assert killed >= 5, "it was killed too seldom for this test to say anything"
    assert sum("/rayjobs/" in write and write.endswith("201") for write in storm.writes) == 1
    assert len(storm.writes) <= len(calm.writes) + killed, "a crash costs at most the repetition of one write"
