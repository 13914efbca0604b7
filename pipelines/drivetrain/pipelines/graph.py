"""ONNX graphs written node by node: fixed names, so that equal meaning gives equal bytes, and a session to run them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from drivetrain.api.errors import ModelError
from drivetrain.api.model import DISABLED_OPTIMIZERS, InputColumn

Floats: TypeAlias = NDArray[np.float64]
Singles: TypeAlias = NDArray[np.float32]
Feed: TypeAlias = Mapping[str, NDArray[np.float32] | NDArray[np.object_]]
Attribute: TypeAlias = int | float | str | Sequence[int] | Sequence[float] | Sequence[str]

OPSET = 17
ML_OPSET = 3
IR_VERSION = 8
"""The oldest format that holds both operator sets, so that older runtimes on devices read the graph."""
ML_DOMAIN = "ai.onnx.ml"


@dataclass(slots=True)
class GraphBuilder:
    """Collects nodes; names number consecutively below the prefix that stands when a node is added."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)
    inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    outputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    prefix: str = ""

    def input(self, column: InputColumn) -> str:
        """Declare one [rows, 1] input."""
        kind = TensorProto.STRING if column.type == "String" else TensorProto.FLOAT
        self.inputs.append(helper.make_tensor_value_info(column.name, kind, ["rows", 1]))
        return column.name

    def output(self, source: str, name: str, width: int | None) -> None:
        """Declare one float32 output: [rows] without `width`, else [rows, width]."""
        self.nodes.append(helper.make_node("Identity", [source], [name], name=f"output/{name}"))
        shape: list[str | int] = ["rows"] if width is None else ["rows", width]
        self.outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))

    def constant(self, value: NDArray[np.float32] | NDArray[np.int64] | NDArray[np.bool_]) -> str:
        """A tensor of the graph."""
        name = f"{self.prefix}constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def number(self, value: float) -> str:
        """A scalar."""
        return self.constant(np.asarray(value, dtype=np.float32))

    def add(self, operator: str, *sources: str, domain: str = "", **attributes: Attribute) -> str:
        """Add a node with one output; returns the output's name."""
        name = f"{self.prefix}{operator}{len(self.nodes)}"
        node = helper.make_node(operator, list(sources), [name], name=name, domain=domain)
        node.attribute.extend(helper.make_attribute(key, attributes[key]) for key in sorted(attributes))
        self.nodes.append(node)
        return name

    def cast(self, source: str) -> str:
        """Truth values or integers as float32."""
        return self.add("Cast", source, to=int(TensorProto.FLOAT))

    def model(self, facts: Mapping[str, str] | None = None) -> onnx.ModelProto:
        """The checked model; `facts` become its metadata, in sorted order."""
        graph = helper.make_graph(self.nodes, "drivetrain", self.inputs, self.outputs, self.constants)
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(ML_DOMAIN, ML_OPSET)],
            ir_version=IR_VERSION,
            producer_name="drivetrain",
        )
        for key in sorted(facts or {}):
            model.metadata_props.add(key=key, value=(facts or {})[key])
        onnx.checker.check_model(model)
        return model


class Session:
    """A graph ready to run on one core, as endpoint replicas do."""

    def __init__(self, content: bytes) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"], disabled_optimizers=DISABLED_OPTIMIZERS
            )
        except Exception as error:  # onnxruntime's own exceptions share no base below Exception
            raise ModelError("ModelInvalid", f"ONNX Runtime cannot load the graph: {error}.") from error
        self.inputs = tuple(value.name for value in self._session.get_inputs())
        self.outputs = tuple(value.name for value in self._session.get_outputs())
        self.facts: Mapping[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)

    def run(self, feed: Feed) -> dict[str, Singles]:
        """All outputs by name."""
        try:
            results = self._session.run(None, dict(feed))
        except Exception as error:  # as above
            raise ModelError("ModelInvalid", f"ONNX Runtime cannot run the graph: {error}.") from error
        return dict(zip(self.outputs, results, strict=True))


def session_of(model: onnx.ModelProto) -> Session:
    """A session on a model in memory."""
    return Session(model_bytes(model))


def model_bytes(model: onnx.ModelProto) -> bytes:
    """The file's content; equal models give equal bytes."""
    return bytes(model.SerializeToString(deterministic=True))
