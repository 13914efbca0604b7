"""A published model: the contract beside its graph says what goes in, what comes out and where it was trained."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from drivetrain.api.canonical import digest
from drivetrain.api.meta import ApiModel
from drivetrain.api.v1alpha1.dataset import ColumnRole, ColumnType, Target, TrainingWindow

GRAPH_FILE = "model.onnx"
CONTRACT_FILE = "contract.json"
REFERENCE_FILE = "reference.json"

CHOOSE_OUTPUT = "choose"
"""Graph output that picks actions: [rows] (Binary: probability of 1; Regression: mean) or [rows, classes]."""
VALUE_OUTPUT = "value"
"""Graph output of the other cross-fitted half, same shape: values, residuals and metrics."""
MEAN_OUTPUT = "prediction"
"""Mean of both, same shape: what /v2 returns."""
DISABLED_OPTIMIZERS = ("DivMulFusion",)
"""Rewrites of ONNX Runtime that training and serving do without: this one makes some valid graphs unloadable
(microsoft/onnxruntime#32416)."""


class InputColumn(ApiModel):
    """One graph input: a [rows, 1] tensor, float32 for numbers and booleans, string for String columns."""

    name: str
    role: ColumnRole
    """Context or Lever; Derived columns are computed inside the graph."""
    type: ColumnType
    nullable: bool = False
    """Missing numbers enter as NaN, missing strings as the null token."""
    minimum: float | None = None
    """Least value seen in training."""
    maximum: float | None = None
    """Greatest value seen in training."""
    categories: tuple[str, ...] = ()
    """String: values seen in training."""


NULL_TOKEN = "\x00null"  # noqa: S105 - not a password: stands for a missing string inside the graph


class ModelContract(ApiModel):
    """What a replica must know to run the graph, and the hashes of the two files beside it.

    It holds what makes the model what it is, and not which run made it or how fast: equal models have equal names.
    """

    project: str
    project_uid: str
    graph: str
    """SHA-256 of the graph file."""
    reference: str
    """SHA-256 of the reference file."""
    data_version: str
    objective_hash: str
    target: Target
    inputs: tuple[InputColumn, ...]
    support: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)
    """Lever to the grid values (as text) near which there were enough training rows."""
    lever_effect: Literal["Experimental", "Observational"] = "Observational"
    """Experimental when every lever value in training came with a logged propensity."""
    multipliers: Mapping[str, float] = Field(default_factory=dict)
    """Portfolio metric to its Lagrange multiplier, solved on the validation rows."""
    trained_until: str | None = None
    """RFC 3339: the newest decision among the training rows, if any came from the decision log."""
    window: TrainingWindow | None = None

    @property
    def digest(self) -> str:
        """What names the published model: the SHA-256 of the contract's file, and so of all three files."""
        return digest(self)


class ReferenceColumn(ApiModel):
    """The training distribution of one Context column: counts per bin, or per category."""

    name: str
    edges: tuple[float, ...] = ()
    """Numbers: inner bin edges, ascending; len(counts) == len(edges) + 1."""
    categories: tuple[str, ...] = ()
    """Strings: one count each, then one for all others."""
    counts: tuple[int, ...]
    nulls: int = 0


class Reference(ApiModel):
    """What the covariate detector compares with."""

    columns: tuple[ReferenceColumn, ...]
    rows: int
