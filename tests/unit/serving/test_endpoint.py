"""The endpoint over ASGI, in one process."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from drivetrain.api import layout
from drivetrain.api.errors import ModelError, StoreError
from drivetrain.api.policy import EndpointConfig
from drivetrain.api.v1alpha1.lever import Exploration
from drivetrain.serving.access import Keys
from drivetrain.serving.endpoint import BODY_LIMIT, Endpoint
from drivetrain.serving.graph import Graph
from drivetrain.serving.outcomes import OutcomeBook
from drivetrain.serving.replica import Replica
from tests.unit.serving.worlds import DECIDE_KEY, OUTCOMES_KEY, World, policy, probability, publish, row


class Client:
    """Calls the ASGI application."""

    def __init__(self, app: Endpoint) -> None:
        self._app = app

    async def post(self, path: str, body: object, key: str | None = DECIDE_KEY) -> tuple[int, Any]:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self._call("POST", path, raw, key)

    async def get(self, path: str, key: str | None = None) -> tuple[int, Any]:
        return await self._call("GET", path, b"", key)

    async def _call(self, method: str, path: str, body: bytes, key: str | None) -> tuple[int, Any]:
        headers = [(b"authorization", f"Bearer {key}".encode())] if key else []
        scope = {"type": "http", "method": method, "path": f"/ns/juice{path}", "root_path": "/ns/juice"}
        sent: list[Any] = []

        async def receive() -> dict[str, object]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        await self._app({**scope, "headers": headers}, receive, send)
        text = sent[1]["body"]
        kind = dict(sent[0]["headers"])[b"content-type"]
        return sent[0]["status"], json.loads(text) if kind == b"application/json" else text.decode()


Start = Callable[[EndpointConfig], Any]


@pytest.fixture
async def start(world: World, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Start]:
    monkeypatch.setattr("drivetrain.serving.loader.try_model", lambda folder: None)
    replicas: list[Replica] = []
    book = OutcomeBook()

    async def number(reports: list[tuple[str, str]]) -> list[int]:
        return book.number(reports)

    async def started(config: EndpointConfig) -> tuple[Client, Replica]:
        replica = Replica(world.settings, world.store, "r")
        replicas.append(replica)
        await replica.first_configuration(config)
        return Client(Endpoint(replica, Keys(world.keys), number)), replica

    yield started
    for replica in replicas:
        await replica.close()


@pytest.fixture
def stable(world: World) -> EndpointConfig:
    return world.config(world.mount(policy(publish(world.store))), world.mount(policy()))


async def test_decide_answers_every_row_with_an_action_and_its_worth(start: Start, stable: EndpointConfig) -> None:
    client, _ = await start(stable)
    status, answer = await client.post("/v1/decide", {"rows": [row(i) for i in range(20)]})
    assert status == 200
    assert len({decision["decisionId"] for decision in answer["rows"]}) == 20
    first = answer["rows"][0]
    assert set(first["action"]) == {"price", "discount"}
    assert first["interval"] == {"lower": 0.0, "upper": pytest.approx(0.74), "covers": "outcome"}
    assert first["expectedValue"] == pytest.approx(0.608, abs=0.001)
    assert (first["variant"], first["fallback"], first["outOfDomain"]) == ("stable", None, [])


async def test_today_answers_before_any_model(start: Start, world: World) -> None:
    baseline = world.mount(policy())
    client, _ = await start(world.config(baseline, baseline))
    status, answer = await client.post("/v1/decide", {"rows": [row(0)]})
    assert (status, answer["rows"][0]["action"]) == (200, {"price": 1.86, "discount": 0.0})
    assert answer["rows"][0]["expectedValue"] is None


async def test_a_refused_call_logs_nothing(start: Start, stable: EndpointConfig, world: World) -> None:
    client, replica = await start(stable)
    status, answer = await client.post("/v1/decide", {"rows": [row(0), row(1, price_rival="dear")]})
    assert status == 422
    assert answer["error"]["problems"][0]["row"] == 1
    assert answer["error"]["problems"][0]["field"] == "price_rival"
    await replica.upload()
    assert not list(world.store.list(layout.DECISIONS))


@pytest.mark.parametrize(
    ("path", "key", "status"),
    [
        ("/v1/decide", None, 401),
        ("/v1/decide", "wrong", 401),
        ("/v1/decide", OUTCOMES_KEY, 403),
        ("/v1/outcomes", DECIDE_KEY, 403),
        ("/v2/models/juice/infer", None, 401),
    ],
)
async def test_keys_open_only_their_own_routes(
    start: Start, stable: EndpointConfig, path: str, key: str | None, status: int
) -> None:
    client, _ = await start(stable)
    assert (await client.post(path, {"rows": [row(0)]}, key))[0] == status


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"[]", 400),
        (b"{}", 422),
        (b'{"rows": []}', 422),
        (b"x" * (BODY_LIMIT + 1), 413),
    ],
)
async def test_broken_bodies_are_refused(start: Start, stable: EndpointConfig, body: bytes, status: int) -> None:
    client, _ = await start(stable)
    assert (await client.post("/v1/decide", body))[0] == status


async def test_a_flood_is_told_to_wait(start: Start, stable: EndpointConfig) -> None:
    client, _ = await start(stable)
    statuses = {(await client.post("/v1/simulate", {"rows": [None] * 1000, "actions": []}))[0] for _ in range(60)}
    assert statuses == {422, 429}


async def test_an_outcome_is_on_the_store_before_it_is_acknowledged_and_numbered(
    start: Start, stable: EndpointConfig, world: World
) -> None:
    client, _ = await start(stable)
    _, answer = await client.post("/v1/decide", {"rows": [row(0)]})
    decision_id = answer["rows"][0]["decisionId"]

    async def report(purchase: int) -> object:
        status, found = await client.post(
            "/v1/outcomes", {"outcomes": [{"decisionId": decision_id, "purchase": purchase}]}, OUTCOMES_KEY
        )
        assert status == 200
        return found["outcomes"][0]["correction"]

    assert [await report(1), await report(1), await report(0), await report(1)] == [0, 0, 1, 0]
    assert len(list(world.store.list(layout.OUTCOMES))) == 4


@pytest.mark.parametrize(
    "outcome",
    [
        {"decisionId": "made-up", "purchase": 1},
        {"purchase": 1},
        {"purchase": 2},
        {"purchase": "yes"},
        {"price": 1.8},
        {},
        {"applied": {"price": 1.8}},
        {"kpi": "much"},
    ],
)
async def test_a_broken_outcome_refuses_the_call_and_names_its_row(
    start: Start, stable: EndpointConfig, world: World, outcome: dict[str, object]
) -> None:
    client, _ = await start(stable)
    _, answer = await client.post("/v1/decide", {"rows": [row(0), row(1)]})
    ids = [decision["decisionId"] for decision in answer["rows"]]
    broken = outcome if "decisionId" in outcome or outcome == {"purchase": 1} else {"decisionId": ids[1], **outcome}
    status, error = await client.post(
        "/v1/outcomes", {"outcomes": [{"decisionId": ids[0], "purchase": 1}, broken]}, OUTCOMES_KEY
    )
    assert status == 422
    assert error["error"]["problems"][0]["row"] == 1
    assert not list(world.store.list(layout.OUTCOMES))


async def test_simulate_values_given_settings(start: Start, stable: EndpointConfig) -> None:
    client, _ = await start(stable)
    settings = [{"price": 1.84, "discount": 0}, {"price": 1.69, "discount": 0.5}]
    status, answer = await client.post("/v1/simulate", {"rows": [row(0), row(1, store="9")], "actions": settings})
    assert status == 200
    assert answer["rows"][0]["expectedValue"][0] == pytest.approx(0.608, abs=0.001)
    assert answer["rows"][0]["feasible"] == [True, False]
    assert [found["outOfDomain"] for found in answer["rows"]] == [[], ["store"]]


async def test_the_inference_protocol_answers_with_the_mean_and_echoes_the_id(
    start: Start, stable: EndpointConfig
) -> None:
    client, _ = await start(stable)
    assert (await client.get("/v2/health/live"))[1] == {"live": True}
    assert (await client.get("/v2/health/ready"))[1] == {"ready": True}
    assert (await client.get("/v2", DECIDE_KEY))[1]["name"] == "drivetrain"
    assert (await client.get("/v2/models/juice", DECIDE_KEY))[1]["versions"] == ["1"]
    assert (await client.get("/v2/models/juice/versions/1/ready", DECIDE_KEY))[0] == 200
    assert (await client.get("/v2/models/juice/versions/2", DECIDE_KEY))[0] == 404
    tensors = [{"name": "store", "datatype": "BYTES", "shape": [2, 1], "data": [["1"], ["7"]]}]
    for name, values in (("price_rival", [1.99, 1.99]), ("price", [1.84, 1.84]), ("discount", [0, 0])):
        tensors.append({"name": name, "datatype": "FP64", "shape": [2, 1], "data": values})
    status, answer = await client.post("/v2/models/juice/versions/1/infer", {"id": "7", "inputs": tensors})
    assert (status, answer["id"], answer["model_version"]) == (200, "7", "1")
    prediction, outside = answer["outputs"]
    chance = float(probability(np.array(1.84), np.array(1.99), "1", half=0.0))
    assert prediction["data"][0] == pytest.approx(chance, abs=1e-5)
    assert outside["data"] == [False, True]
    status, error = await client.post("/v2/models/juice/infer", {"inputs": tensors[1:]})
    assert (status, error["error"]["problems"][0]["field"]) == (422, "store")


async def test_the_pages_describe_the_contract_in_force(start: Start, stable: EndpointConfig) -> None:
    client, replica = await start(stable)
    _, document = await client.get("/openapi.json")
    rows = document["paths"]["/v1/decide"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert "price_rival" in rows["properties"]["rows"]["items"]["required"]
    assert "price_rival" in (await client.get("/docs"))[1]
    assert f'drivetrain_ready{{replica="{replica.name}"}} 1' in (await client.get("/metrics"))[1]
    assert (await client.get("/nothing"))[0] == 404


async def test_no_series_of_one_replica_is_one_of_another(start: Start, stable: EndpointConfig) -> None:
    """A scrape meets any replica: counters under one name would go up and down by turns."""
    told: list[set[tuple[str, tuple[tuple[str, str], ...]]]] = []
    for _ in range(2):
        client, replica = await start(stable)
        await client.post("/v1/decide", {"rows": [row(0)]})
        replica.metrics.store_failed("StoreUnavailable")
        page = (await client.get("/metrics"))[1]
        samples = [each for family in text_string_to_metric_families(page) for each in family.samples]
        assert {each.labels["replica"] for each in samples} == {replica.name}
        told.append({(each.name, tuple(sorted(each.labels.items()))) for each in samples})
    assert told[0].isdisjoint(told[1])


async def test_a_pinned_version_answers_on_v2_only_and_says_so(
    start: Start, stable: EndpointConfig, world: World
) -> None:
    client, _ = await start(stable.model_copy(update={"pinned": True}))
    for path, key in (("/v1/decide", DECIDE_KEY), ("/v1/simulate", DECIDE_KEY), ("/v1/outcomes", OUTCOMES_KEY)):
        status, answer = await client.post(path, {"rows": [row(0)]}, key)
        assert (status, answer["error"]["reason"]) == (404, "VersionPinned")
    assert (await client.get("/v2/models/juice/ready", DECIDE_KEY))[0] == 200
    assert (await client.get("/openapi.json"))[1]["paths"] == {}
    assert "/v1/decide" not in (await client.get("/docs"))[1]
    assert not list(world.store.list(layout.DECISIONS))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - a thread's work has no event
            await asyncio.sleep(0.01)


async def test_a_candidate_is_loaded_beside_stable_and_weighted_in_place(
    start: Start, stable: EndpointConfig, world: World
) -> None:
    client, replica = await start(stable)
    candidate = world.mount(policy(publish(world.store, slope=8.0, loyalty=True), version="2", loyalty=True))
    replica.configure(stable.model_copy(update={"load": (candidate,)}))
    assert (await client.post("/v1/decide", {"rows": [row(0, loyalty=0.3)]}))[0] == 200
    await until(lambda: replica.state().loads[candidate].state == "Loaded")
    replica.configure(
        stable.model_copy(update={"load": (candidate,), "candidate": candidate, "weight": 50, "rollout": "r1"})
    )
    assert replica.state().weight == 50
    _, answer = await client.post("/v1/decide", {"rows": [row(i, loyalty=0.3) for i in range(40)]})
    assert {decision["variant"] for decision in answer["rows"]} == {"stable", "candidate"}
    replica.configure(stable)
    assert candidate not in replica.state().loads
    status, answer = await client.post("/v1/decide", {"rows": [row(0, loyalty=0.3)]})
    assert (status, answer["ignoredFields"]) == (200, ["loyalty"])


async def test_a_replica_counts_what_a_candidate_without_weight_did_and_starts_anew_with_each_rollout(
    start: Start, stable: EndpointConfig, world: World
) -> None:
    client, replica = await start(stable)
    candidate = world.mount(policy(publish(world.store, slope=8.0), version="2"))
    replica.configure(stable.model_copy(update={"load": (candidate,)}))
    await until(lambda: replica.state().loads[candidate].state == "Loaded")
    for rollout, batches in (("r1", 3), ("r2", 1)):
        beside = {"load": (candidate,), "candidate": candidate, "weight": 0, "rollout": rollout}
        replica.configure(stable.model_copy(update=beside))
        for batch in range(batches):
            _, answer = await client.post("/v1/decide", {"rows": [row(10 * batch + i) for i in range(10)]})
            assert {decision["variant"] for decision in answer["rows"]} == {"stable"}
        state = replica.state()
        assert (state.candidate, state.weight, state.shadowed.decisions) == (candidate, 0, 10 * batches)
        assert state.shadowed.seconds > 0


async def test_a_model_that_fails_is_told_to_whoever_asks_it_alone(
    start: Start, stable: EndpointConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, _ = await start(stable)

    def failing(*_: object) -> None:
        raise ModelError("ModelFailed", "The model fails on these rows: bad shape")

    monkeypatch.setattr(Graph, "predict", failing)
    status, answer = await client.post("/v1/simulate", {"rows": [row(0)], "actions": [{"price": 1.99, "discount": 0}]})
    assert (status, answer["error"]["reason"]) == (500, "ModelFailed")


async def test_an_unknown_version_is_reported_while_stable_goes_on(
    start: Start, stable: EndpointConfig, world: World
) -> None:
    client, replica = await start(stable)
    missing = world.mount(policy("0" * 64, version="9"))
    replica.configure(stable.model_copy(update={"load": (missing,)}))
    await until(lambda: replica.state().loads[missing].state == "Failed")
    assert replica.state().loads[missing].reason == "ModelNotFound"
    assert (await client.post("/v1/decide", {"rows": [row(0)]}))[0] == 200


async def test_a_replica_that_starts_without_its_policy_says_so_and_recovers(start: Start, world: World) -> None:
    baseline = policy()
    hash_ = world.mount(baseline)
    (world.policies / f"{hash_}.json").rename(world.root / "later.json")
    task = asyncio.create_task(start(world.config(hash_, hash_)))
    await asyncio.sleep(0)
    (world.root / "later.json").rename(world.policies / f"{hash_}.json")
    client, _ = await task
    assert (await client.post("/v1/decide", {"rows": [row(0)]}))[0] == 200


async def test_exploration_is_drawn_with_the_logged_probability(start: Start, world: World) -> None:
    stable = world.mount(policy(publish(world.store)))
    config = world.config(stable, world.mount(policy()), exploration=Exploration(share=1.0, steps=1))
    client, _ = await start(config)
    _, answer = await client.post("/v1/decide", {"rows": [row(i) for i in range(900)]})
    prices = [(d["action"]["price"], d["action"]["discount"]) for d in answer["rows"]]
    counts = [prices.count(action) for action in set(prices)]
    # 1.84/0 has a neighbourhood of 6 actions (3 prices, 2 discounts); binomial(900, 1/6): 150 +- 5 sd of 11.2
    assert len(counts) == 6
    assert all(94 <= count <= 206 for count in counts)


async def test_a_background_task_goes_on_after_any_error_and_counts_it(start: Start, stable: EndpointConfig) -> None:
    client, replica = await start(stable)
    errors = [OSError("no space left"), StoreError("StoreUnavailable", "Away."), OverflowError("too large")]
    tried = asyncio.Event()

    async def step() -> None:
        if errors:
            raise errors.pop()
        tried.set()

    task = asyncio.create_task(replica._repeat(0.0, step))
    await asyncio.wait_for(tried.wait(), 5)
    task.cancel()
    _, text = await client.get("/metrics")
    mine = f'replica="{replica.name}"'
    for counted in (
        f'drivetrain_background_failures_total{{{mine},error="OSError"}} 1',
        f'drivetrain_background_failures_total{{{mine},error="OverflowError"}} 1',
        f'drivetrain_store_failures_total{{{mine},reason="StoreUnavailable"}} 1',
        f"drivetrain_unreadable_segments_total{{{mine}}} 0",
    ):
        assert counted in text


async def test_what_is_closed_is_uploaded_though_the_disk_refuses_a_new_segment(
    start: Start, stable: EndpointConfig, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, replica = await start(stable)
    replica.decide([row(0)])
    replica._journal.rotate()
    replica.decide([row(1)])
    before = replica.uploaded_until

    def refuse(*_: object) -> int:
        raise OSError("No space left on device")

    with monkeypatch.context() as full:
        full.setattr(replica._journal, "_open", refuse)
        with pytest.raises(OSError, match="No space"):
            await replica.upload()
    assert len(list(world.store.list(layout.DECISIONS))) == 1
    assert replica.uploaded_until == before
