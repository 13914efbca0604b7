"""The servers that are compared, each in a process tree of its own: ours as the operator deploys it, and naive ones.

Each is started as `python -m benchmarks.served KIND PORT FOLDER REPLICAS`, FOLDER being the published model's.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks import naive
from benchmarks.measuring import ROOT, Tree
from benchmarks.shop import KEY, Shop
from drivetrain.api import names
from drivetrain.api.canonical import canonical_json
from drivetrain.api.policy import EndpointConfig

APPLICATION = "juice"


class Server:
    """A server in a process tree of its own."""

    def __init__(self, kind: str, folder: Path, shop: Shop, haproxy: Path, replicas: int) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = int(probe.getsockname()[1])
        self.kind = kind
        self._log = shop.root / f"{kind}.log"
        self.path = f"/{APPLICATION}/v1/decide" if kind == "ours" else "/decide"
        self.headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
        env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **names.NO_TELEMETRY}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.served", kind, str(self.port), str(folder), str(replicas)],
            stdin=subprocess.PIPE, stdout=self._log.open("wb"), stderr=subprocess.STDOUT, cwd=ROOT,
            start_new_session=True, env=env | (_our_environment(shop, haproxy) if kind == "ours" else {}),
        )  # fmt: skip
        self.tree = Tree(self._process.pid)

    def configure(self, config: EndpointConfig) -> None:
        """What the operator does to ours: the next Serve configuration."""
        assert self._process.stdin is not None
        self._process.stdin.write(canonical_json(config).encode() + b"\n")
        self._process.stdin.flush()

    def wait(self, body: bytes, *, seconds: float = 180.0) -> None:
        """Returns when a request is answered. Raises RuntimeError with the end of the log when none is."""
        deadline = time.monotonic() + seconds
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{self.path}", body, self.headers)
        while True:
            try:
                with urllib.request.urlopen(request, timeout=10):
                    return
            except OSError as error:  # nothing listens yet, or it answers that it is not ready (HTTPError is one)
                if time.monotonic() > deadline or self._process.poll() is not None:
                    tail = self._log.read_text(errors="replace")[-2000:]
                    raise RuntimeError(f"{self.kind} does not answer ({error}):\n{tail}") from error
                time.sleep(0.2)

    def end(self) -> None:
        """Ends all its processes."""
        self.tree.end()


@contextlib.contextmanager
def servers(kinds: tuple[str, ...], folder: Path, shop: Shop, *, replicas: int = 1) -> Iterator[list[Server]]:
    """Servers that end with the context; ours has as many replicas."""
    started: list[Server] = []
    # A socket's path may have only 107 characters, so HAProxy's folder does not lie below the shop's.
    with tempfile.TemporaryDirectory(prefix="hap", dir="/tmp", ignore_cleanup_errors=True) as haproxy:
        try:
            for kind in kinds:
                started.append(Server(kind, folder, shop, Path(haproxy), replicas))
            yield started
        finally:
            for server in started:
                server.end()


def _our_environment(shop: Shop, haproxy: Path) -> dict[str, str]:
    """What the operator sets on Ray containers, and ports and paths of HAProxy's own, as embedded."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(4)]
    metrics, stats, http, grpc = (str(each.getsockname()[1]) for each in held)
    for each in held:
        each.close()
    return {
        names.PROJECT_ENV: "orange-juice",
        names.DEPLOYMENT_ENV: "orange-juice",
        names.POLICIES_ENV: str(shop.policies),
        names.KEYS_ENV: str(shop.keys),
        names.WORK_ENV: str(shop.work),
        names.STORE_ENV: (shop.root / "store").as_uri(),
        names.SERVICE_ACCOUNT_ENV: str(shop.root / "none"),
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_HAPROXY_NBTHREAD": "1",
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(haproxy / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(haproxy / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(haproxy),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(haproxy / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": metrics,
        "RAY_SERVE_HAPROXY_STATS_PORT": stats,
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": http,
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": grpc,
    }


def _serve_ours(port: int, replicas: int) -> None:
    from ray.serve.context import _get_global_client
    from ray.serve.schema import ServeDeploySchema

    naive.start_ray(port)
    client = _get_global_client()
    assert client is not None
    for line in sys.stdin:
        config: Mapping[str, Any] = json.loads(line)
        sizes = {"Endpoint": replicas, "Monitor": 1}
        parts = ({"name": name, "num_replicas": size, "user_config": config} for name, size in sizes.items())
        application = {
            "name": APPLICATION,
            "route_prefix": f"/{APPLICATION}",
            "import_path": "drivetrain.serving.app:build",
            "deployments": [{**part, "ray_actor_options": {"num_cpus": 0.1}} for part in parts],
        }
        http = {"host": "127.0.0.1", "port": port}
        schema = {"applications": [application], "http_options": http, "proxy_location": "HeadOnly"}
        client.deploy_apps(ServeDeploySchema.model_validate(schema))


def main(kind: str, port: int, folder: Path, replicas: int) -> None:
    """Serves until it is told to end."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    match kind:
        case "ours":
            _serve_ours(port, replicas)
        case "plain":
            naive.serve_plain(port, folder)
        case _:
            naive.serve_default(port, folder)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
