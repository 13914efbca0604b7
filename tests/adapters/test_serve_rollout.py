"""The application under a real Ray Serve: a whole rollout without a failed request, and a killed replica.

Time inside Ray is real; every wait has a deadline. One Ray instance and one application serve all tests of the module.
"""

import http.client
import io
import json
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest

from drivetrain.api import decision_log as log
from drivetrain.api import layout
from drivetrain.api.policy import EndpointConfig
from drivetrain.api.v1alpha1.lever import Exploration
from tests.unit.serving.worlds import DECIDE_KEY, OUTCOMES_KEY, World, as_json, policy, publish, row

pytestmark = pytest.mark.ray

APPLICATION = "juice"
PREFIX = "/ns/juice"


class Served:
    """The application, its world and its address."""

    def __init__(self, world: World, port: int) -> None:
        self.world = world
        self.port = port
        self.replicas = 1

    def deploy(self, config: EndpointConfig, replicas: int | None = None) -> None:
        """What the operator does: the whole Serve configuration, of which only user_config and counts differ."""
        from ray.serve.context import _get_global_client
        from ray.serve.schema import ServeDeploySchema

        self.replicas = replicas or self.replicas
        options = {"num_cpus": 0.1}
        endpoint = {"name": "Endpoint", "num_replicas": self.replicas, "ray_actor_options": options}
        monitor = {"name": "Monitor", "ray_actor_options": options}
        application = {
            "name": APPLICATION,
            "route_prefix": PREFIX,
            "import_path": "drivetrain.serving.app:build",
            "deployments": [{**part, "user_config": as_json(config)} for part in (endpoint, monitor)],
        }
        schema = {
            "applications": [application],
            "http_options": {"host": "127.0.0.1", "port": self.port},
            "proxy_location": "HeadOnly",
        }
        client = _get_global_client()
        assert client is not None
        client.deploy_apps(ServeDeploySchema.model_validate(schema))

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def post(self, path: str, body: object, key: str = DECIDE_KEY) -> tuple[int, Any]:
        connection = self.connection()
        try:
            connection.request("POST", PREFIX + path, json.dumps(body), {"Authorization": f"Bearer {key}"})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        except (OSError, json.JSONDecodeError):
            return 0, {}
        finally:
            connection.close()

    def decisions(self, count: int) -> list[dict[str, Any]]:
        status, answer = self.post("/v1/decide", {"rows": [row(number, loyalty=0.5) for number in range(count)]})
        found: list[dict[str, Any]] = answer["rows"] if status == 200 else []
        return found

    def replica_pids(self) -> list[int]:
        """Our own descendants only: another Ray on this machine is none of our business."""
        found = []
        for process in psutil.Process().children(recursive=True):
            try:
                if "ServeReplica:juice:Endpoint" in " ".join(process.cmdline()):
                    found.append(process.pid)
            except psutil.NoSuchProcess:
                continue
        return found

    def logged_ids(self) -> list[str]:
        store = self.world.store
        return [
            id_
            for info in store.list(layout.DECISIONS)
            for id_ in pq.read_table(io.BytesIO(store.get(info.key))).column(log.DECISION_ID).to_pylist()
        ]


def until(condition: Callable[[], bool], what: str, seconds: float = 90) -> None:
    """Waits for a condition, or fails saying what was awaited."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain: {what}"
        threading.Event().wait(0.05)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    import ray
    from ray import serve

    world = World(tmp_path_factory.mktemp("served"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    python_path = str(Path(__file__).parents[2])
    ray.init(
        num_cpus=4,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {**world.env, "PYTHONPATH": python_path, "OMP_NUM_THREADS": "1"}},
    )
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        found = Served(world, port)
        baseline = world.mount(policy())
        found.deploy(world.config(baseline, baseline))
        until(lambda: bool(found.decisions(1)), "the first decision")
        yield found
    finally:
        serve.shutdown()  # type: ignore[no-untyped-call]  # Ray left this one without annotations
        ray.shutdown()


class Load:
    """Clients that never stop asking, and what they were answered."""

    def __init__(self, served: Served, clients: int = 2) -> None:
        self.statuses: Counter[str] = Counter()
        self.variants: Counter[str] = Counter()
        self.failures: list[bytes] = []
        self.slowest = 0.0
        self._served = served
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(clients)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, client: int) -> None:
        connection = self._served.connection()
        number = 0
        while not self._stop.is_set():
            number += 1
            body = json.dumps({"rows": [row(1000 * client + number % 1000, loyalty=0.5)]})
            started = time.monotonic()
            try:
                connection.request("POST", f"{PREFIX}/v1/decide", body, {"Authorization": f"Bearer {DECIDE_KEY}"})
                answer = connection.getresponse()
                content = answer.read()
                self.statuses[str(answer.status)] += 1
                if answer.status == 200:
                    self.variants[json.loads(content)["rows"][0]["policy"]] += 1
                else:
                    self.failures.append(content)
            except (OSError, http.client.HTTPException) as error:
                self.statuses[type(error).__name__] += 1
                connection = self._served.connection()
            self.slowest = max(self.slowest, time.monotonic() - started)


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_whole_rollout_fails_no_request_and_none_waits_for_a_model(served: Served, replicas: int) -> None:
    world = served.world
    baseline = world.mount(policy())
    stable = world.mount(policy(publish(world.store, slope=9.0 + replicas)))
    candidate = world.mount(
        policy(publish(world.store, slope=8.0 + replicas / 10, loyalty=True), version="2", loyalty=True)
    )
    plain = {"exploration": Exploration(share=0.1), "holdout": 0.01}

    def settled(policies: set[str]) -> Callable[[], bool]:
        return lambda: {decision["policy"] for decision in served.decisions(60)} >= policies

    served.deploy(world.config(stable, baseline, **plain), replicas)
    until(lambda: len(served.replica_pids()) == replicas, f"{replicas} replicas")
    until(settled({stable}), "stable serves")
    with Load(served) as quiet:
        until(lambda: sum(quiet.statuses.values()) > 150, "a quiet stretch")
    with Load(served) as load:
        loading = world.config(stable, baseline, load=(candidate,), **plain)
        served.deploy(loading)
        before = sum(load.statuses.values())
        until(lambda: sum(load.statuses.values()) > before + 50, "requests while the candidate loads")
        for weight in (10, 50, 90):
            served.deploy(
                loading.model_copy(update={"candidate": candidate, "weight": weight, "rollout": f"r{replicas}"})
            )
            until(settled({stable, candidate}), f"the candidate gets {weight} %")
        served.deploy(world.config(candidate, baseline, **plain))
        until(lambda: {d["variant"] for d in served.decisions(60)} <= {"stable", "holdout"}, "the promotion")
        until(lambda: stable not in {d["policy"] for d in served.decisions(60)}, "the old stable is gone")
    assert set(load.statuses) == {"200"}, load.failures[:3]
    assert load.variants[candidate] > 0
    assert load.variants[stable] > 0
    # Loading a model takes a child process that imports the runtime: seconds on this machine, were it ever waited for.
    assert load.slowest < 10 * quiet.slowest + 1.0


def test_a_killed_replica_loses_no_answered_decision(served: Served) -> None:
    ids = [decision["decisionId"] for _ in range(5) for decision in served.decisions(3)]
    assert len(ids) == 15
    for pid in served.replica_pids():
        os.kill(pid, signal.SIGKILL)
    until(lambda: bool(served.decisions(1)), "a new replica answers")
    until(lambda: set(ids) <= set(served.logged_ids()), "the journals of the killed replicas are uploaded")
    logged = served.logged_ids()
    assert all(logged.count(id_) == 1 for id_ in ids)


def test_outcomes_are_numbered_by_one_book_whatever_replica_takes_them(served: Served) -> None:
    decision_id = served.decisions(1)[0]["decisionId"]

    def report(purchase: int) -> object:
        status, answer = served.post(
            "/v1/outcomes", {"outcomes": [{"decisionId": decision_id, "purchase": purchase}]}, OUTCOMES_KEY
        )
        assert status == 200
        return answer["outcomes"][0]["correction"]

    assert [report(1), report(0), report(1), report(0)] == [0, 1, 0, 1]
