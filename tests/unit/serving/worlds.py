"""A small project with published models, and today's policy, for tests of the endpoint."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from drivetrain.api import canonical, layout, names
from drivetrain.api.canonical import canonical_json
from drivetrain.api.model import InputColumn, ModelContract, Reference, ReferenceColumn
from drivetrain.api.policy import EndpointConfig, Policy, policy_hash
from drivetrain.api.v1alpha1.dataset import Column, Target
from drivetrain.api.v1alpha1.lever import Exploration, Lever
from drivetrain.api.v1alpha1.objective import Baseline, Constraint, Kpi, ModelMetric, Objective
from drivetrain.api.v1alpha1.project import VersionReference
from drivetrain.serving.settings import Settings
from drivetrain.store import DirectoryStore

DECIDE_KEY = "decide-key"
OUTCOMES_KEY = "outcomes-key"
TARGET = Target(name="purchase", type="Binary")
LEVERS = (
    Lever.model_validate({"name": "price", "type": "Continuous", "minimum": "1.69", "maximum": "2.09", "step": "0.05"}),
    Lever.model_validate({"name": "discount", "type": "Continuous", "minimum": "0", "maximum": "0.5", "step": "0.1"}),
)
COLUMNS = (
    Column(name="visit_id", role="Identifier", type="String"),
    Column(name="store", role="Context", type="String"),
    Column(name="price_rival", role="Context", type="Float", minimum=0),
    Column(name="shelf_price", role="Context", type="Float"),
    Column(name="shelf_discount", role="Context", type="Float"),
    Column(name="week", role="Uncontrolled", type="Integer"),
    Column(name="price", role="Lever", type="Float"),
    Column(name="discount", role="Lever", type="Float"),
    Column(name="purchase", role="AfterAction", type="Integer"),
)
REFERENCE = Reference(
    columns=(
        ReferenceColumn(name="store", categories=("1", "2"), counts=(510, 490, 0)),
        ReferenceColumn(name="price_rival", edges=(1.9, 2.1), counts=(300, 400, 300)),
    ),
    rows=1000,
)
"""The training contexts of every published model."""
LOYALTY = Column(name="loyalty", role="Context", type="Float")


def objective(**changes: Any) -> Objective:
    """The margin of a visit."""
    fields: dict[str, object] = {
        "kpi": Kpi.model_validate(
            {"name": "margin", "unit": "USD", "minimum": "-1", "maximum": "1", "maturesAfter": "1h"}
        ),
        "value": "purchase * (price - discount - 1.1)",
        "baseline": Baseline(expression={"price": "shelf_price", "discount": "shelf_discount"}),
        "unit": "visit_id",
        "model_metric": ModelMetric(name="logLoss", direction="Minimize"),
        "constraints": (Constraint(scope="PerDecision", expression="price - discount >= 1.3"),),
    }
    return Objective.model_validate(fields | changes)


def policy(digest: str | None = None, *, version: str = "1", loyalty: bool = False, **changes: Any) -> Policy:
    """Today's policy, or that of a published model."""
    return Policy(
        model=VersionReference(version=version, digest=digest, run="juice-1") if digest else None,
        objective=objective(**changes),
        levers=LEVERS,
        columns=(*COLUMNS, LOYALTY) if loyalty else COLUMNS,
        target=TARGET,
        slices=("store",),
    )


def publish(
    store: DirectoryStore, *, slope: float = 9.0, intercept: float = 16.0, loyalty: bool = False, half: float = 0.2
) -> str:
    """Publishes a logistic model of purchase on price - discount, price_rival, store (and loyalty); its digest."""
    inputs = [
        InputColumn(name="store", role="Context", type="String", categories=("1", "2")),
        InputColumn(name="price_rival", role="Context", type="Float", minimum=1.69, maximum=2.29),
        *([InputColumn(name="loyalty", role="Context", type="Float", minimum=0, maximum=1)] if loyalty else []),
        InputColumn(name="price", role="Lever", type="Float", minimum=1.69, maximum=2.09),
        InputColumn(name="discount", role="Lever", type="Float", minimum=0, maximum=0.5),
    ]
    graph = _graph(inputs, slope, intercept, half)
    contract = ModelContract(
        project="juice",
        project_uid="uid",
        graph=hashlib.sha256(graph).hexdigest(),
        reference=canonical.digest(REFERENCE),
        data_version="v",
        objective_hash="o",
        target=TARGET,
        inputs=tuple(inputs),
    )
    folder = layout.model(contract.digest)
    store.put(f"{folder}/model.onnx", graph)
    store.put(f"{folder}/reference.json", canonical_json(REFERENCE).encode())
    store.put(f"{folder}/contract.json", canonical_json(contract).encode())
    return contract.digest


def probability(
    net: NDArray[np.float64],
    rival: NDArray[np.float64],
    store: str,
    *,
    slope: float = 9.0,
    intercept: float = 16.0,
    half: float = 0.2,
) -> NDArray[np.float64]:
    """What the published model's `choose` output gives without loyalty (`value` has half = -half)."""
    shift = {"1": 0.3, "2": -0.3}.get(store, 0.0)
    return np.asarray(1 / (1 + np.exp(-(intercept + half - slope * net + rival + shift))))


def _graph(inputs: list[InputColumn], slope: float, intercept: float, half: float) -> bytes:
    tensors = [
        helper.make_tensor_value_info(
            given.name, TensorProto.STRING if given.type == "String" else TensorProto.FLOAT, [None, 1]
        )
        for given in inputs
    ]
    nodes = [
        helper.make_node(
            "LabelEncoder",
            ["store"],
            ["shift"],
            domain="ai.onnx.ml",
            keys_strings=["1", "2"],
            values_floats=[0.3, -0.3],
            default_float=0.0,
        ),
        helper.make_node("Sub", ["price", "discount"], ["net"]),
        helper.make_node("Mul", ["net", "minus_slope"], ["cost"]),
        helper.make_node("Add", ["cost", "price_rival"], ["a"]),
        helper.make_node("Add", ["a", "shift"], ["b"]),
    ]
    last = "b"
    if any(given.name == "loyalty" for given in inputs):
        nodes.append(helper.make_node("Add", ["b", "loyalty"], ["c"]))
        last = "c"
    for output, constant in (("choose", "up"), ("value", "down"), ("prediction", "mid")):
        nodes.append(helper.make_node("Add", [last, constant], [f"{output}_logit"]))
        nodes.append(helper.make_node("Sigmoid", [f"{output}_logit"], [f"{output}_2d"]))
        nodes.append(helper.make_node("Squeeze", [f"{output}_2d", "axis"], [output]))
    initializers = [
        helper.make_tensor("minus_slope", TensorProto.FLOAT, [1], [-slope]),
        helper.make_tensor("up", TensorProto.FLOAT, [1], [intercept + half]),
        helper.make_tensor("down", TensorProto.FLOAT, [1], [intercept - half]),
        helper.make_tensor("mid", TensorProto.FLOAT, [1], [intercept]),
        helper.make_tensor("axis", TensorProto.INT64, [1], [1]),
    ]
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [None]) for name in ("choose", "value", "prediction")
    ]
    graph = helper.make_graph(nodes, "juice", tensors, outputs, initializers)
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)], ir_version=8
    )
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


class World:
    """A store, mounted policies and keys below one folder, as the operator would lay them out."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = DirectoryStore(root / "store")
        self.policies = root / "policies"
        self.keys = root / "keys"
        self.work = root / "work"
        for folder in (self.policies, self.keys, self.work):
            folder.mkdir(exist_ok=True)
        (self.keys / "decide").write_text(DECIDE_KEY)
        (self.keys / "outcomes").write_text(OUTCOMES_KEY)

    @property
    def env(self) -> dict[str, str]:
        """What the operator would set."""
        return {
            names.PROJECT_ENV: "juice",
            names.DEPLOYMENT_ENV: "juice",
            names.POLICIES_ENV: str(self.policies),
            names.KEYS_ENV: str(self.keys),
            names.WORK_ENV: str(self.work),
            names.STORE_ENV: (self.root / "store").as_uri(),
            names.SERVICE_ACCOUNT_ENV: str(self.root / "none"),
        }

    @property
    def settings(self) -> Settings:
        """The same, typed."""
        return Settings.of(self.env)

    def mount(self, given: Policy) -> str:
        """Mounts a policy document; its hash."""
        hash_ = policy_hash(given)
        (self.policies / f"{hash_}.json").write_text(canonical_json(given))
        return hash_

    def config(self, stable: str, baseline: str, **changes: object) -> EndpointConfig:
        """A configuration."""
        fields: dict[str, object] = {
            "stable": stable,
            "baseline": baseline,
            "salt": "s",
            "exploration": Exploration(share=0.0),
        }
        return EndpointConfig.model_validate(fields | changes)


def row(number: int = 0, **changes: object) -> dict[str, object]:
    """A request row."""
    fields: dict[str, object] = {
        "visit_id": f"v{number}",
        "store": "1",
        "price_rival": 1.99,
        "shelf_price": 1.86,
        "shelf_discount": 0.0,
    }
    return fields | changes


@contextmanager
def environment(changes: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for the length of a block."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def as_json(config: EndpointConfig) -> dict[str, object]:
    """A configuration as `user_config` carries it."""
    document: dict[str, object] = json.loads(canonical_json(config))
    return document
