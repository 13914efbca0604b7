"""What people build first: the same graph behind FastAPI, plainly and as a deployment of Ray Serve without any flags.

Both do the search that ours does: predict the purchase at each of the 54 actions of the grid, drop those that break the
constraint, take the most valuable. They validate requests with pydantic, as FastAPI does by default, and neither log,
explore, authenticate, compare nor watch.
"""

import itertools
import os
import threading
from pathlib import Path

import numpy as np
import onnxruntime as ort
from fastapi import FastAPI
from pydantic import BaseModel

from drivetrain.api.model import ModelContract


class Visit(BaseModel):
    """One row of a request."""

    visit_id: str
    week: int
    store: int
    shelf_price: float
    shelf_discount: float
    rival_price: float
    rival_discount: float
    loyalty: float


class Request(BaseModel):
    """The body of a request."""

    rows: list[Visit]


class Action(BaseModel):
    """The answer to one row."""

    price: float
    discount: float
    expected_value: float


class GridSearch:
    """The search that every server does, on one thread of ONNX Runtime."""

    def __init__(self, folder: Path) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = ort.InferenceSession(os.fspath(folder / "model.onnx"), options, ["CPUExecutionProvider"])
        self._inputs = ModelContract.model_validate_json((folder / "contract.json").read_bytes()).inputs
        prices = [round(1.69 + 0.05 * step, 2) for step in range(9)]
        grid = itertools.product(prices, [round(0.1 * step, 1) for step in range(6)])
        self._price, self._discount = np.array(list(grid)).T
        self._margin = self._price - self._discount - 1.1
        self._feasible = self._price - self._discount >= 1.3 - 1e-9

    def __call__(self, rows: list[Visit]) -> list[Action]:
        """The best action of each visit."""
        actions = len(self._price)
        feeds: dict[str, object] = {}
        for given in self._inputs:
            if given.name in ("price", "discount"):
                column = np.tile(self._price if given.name == "price" else self._discount, len(rows))
            else:
                column = np.repeat([getattr(row, given.name) for row in rows], actions)
            kind = object if given.type == "String" else np.float32
            feeds[given.name] = column.astype(kind).reshape(-1, 1)
        choose, value = self._session.run(["choose", "value"], feeds)
        values = np.reshape(choose, (len(rows), actions)) * self._margin
        best = np.argmax(np.where(self._feasible, values, -np.inf), axis=1)
        worth = np.reshape(value, (len(rows), actions))[np.arange(len(rows)), best] * self._margin[best]
        chosen = zip(self._price[best].tolist(), self._discount[best].tolist(), worth.tolist(), strict=True)
        return [Action(price=price, discount=discount, expected_value=each) for price, discount, each in chosen]


def plain(folder: Path) -> FastAPI:
    """The plain service."""
    application, search = FastAPI(), GridSearch(folder)

    @application.post("/decide")
    async def decide(request: Request) -> list[Action]:
        return search(request.rows)

    return application


def serve_plain(port: int, folder: Path) -> None:
    """The plain service, one process, until it is told to end."""
    import uvicorn

    uvicorn.run(plain(folder), host="127.0.0.1", port=port, access_log=False, log_level="warning")


def serve_default(port: int, folder: Path) -> None:
    """A deployment of one replica behind Ray Serve's own proxy, until it is told to end."""
    from ray import serve

    application = FastAPI()

    @serve.deployment
    @serve.ingress(application)
    class Naive:
        def __init__(self) -> None:
            self._search = GridSearch(folder)

        @application.post("/decide")
        async def decide(self, request: Request) -> list[Action]:
            return self._search(request.rows)

    start_ray(port)
    serve.run(Naive.bind())  # type: ignore[attr-defined]  # Ray types its decorator as returning the class
    threading.Event().wait()


def start_ray(port: int) -> None:
    """A Ray of its own, and Serve listening on `port`."""
    import ray
    from ray import serve

    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, object_store_memory=200_000_000)
    serve.start(http_options={"host": "127.0.0.1", "port": port}, proxy_location="HeadOnly")
