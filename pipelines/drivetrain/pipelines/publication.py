"""Publication: both cross-fitted halves as one graph, its contract and the reference distribution beside it."""

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl

from drivetrain.api import layout
from drivetrain.api.canonical import canonical_json
from drivetrain.api.errors import ModelError
from drivetrain.api.model import (
    CHOOSE_OUTPUT,
    CONTRACT_FILE,
    GRAPH_FILE,
    MEAN_OUTPUT,
    REFERENCE_FILE,
    VALUE_OUTPUT,
    ModelContract,
    Reference,
    ReferenceColumn,
)
from drivetrain.api.v1alpha1.dataset import Dataset, Target
from drivetrain.evidence.histogram import Bins
from drivetrain.pipelines.features import FeaturePlan, add_features
from drivetrain.pipelines.graph import GraphBuilder, model_bytes
from drivetrain.pipelines.models import Scorer, outputs_of
from drivetrain.store import ObjectStore

REFERENCE_BINS = 10


def compose(plan: FeaturePlan, choose: Scorer, value: Scorer, target: Target, facts: Mapping[str, str]) -> bytes:
    """The graph file: outputs `choose`, `value` and their mean. Equal arguments give equal bytes."""
    graph = GraphBuilder()
    features = add_features(graph, plan)
    width = outputs_of(target) if target.classes else None
    halves = []
    for name, model in ((CHOOSE_OUTPUT, choose), (VALUE_OUTPUT, value)):
        graph.prefix = f"{name}/"
        scores = model.add(graph, features)
        if width is None:
            scores = graph.add("Reshape", scores, graph.constant(np.array([-1], dtype=np.int64)))
        halves.append(scores)
    graph.prefix = ""
    for name, scores in zip((CHOOSE_OUTPUT, VALUE_OUTPUT), halves, strict=True):
        graph.output(scores, name, width)
    graph.output(graph.add("Mean", *halves), MEAN_OUTPUT, width)
    return model_bytes(graph.model(facts))


def digest_of(content: bytes) -> str:
    """The SHA-256 of a file's content, in hex."""
    return hashlib.sha256(content).hexdigest()


def reference(frame: pl.DataFrame, dataset: Dataset, plan: FeaturePlan) -> Reference:
    """The training contexts, binned at their deciles; the time by which rows are split is left out."""
    time_like = dataset.split.column if dataset.split.strategy == "Time" else None
    columns = []
    for column in plan.inputs:
        if column.role != "Context" or column.name == time_like:
            continue
        values = frame[column.name]
        if column.type == "String":
            texts = values.cast(pl.String).to_list()
            levels = Bins.of_levels(texts)
            *counts, nulls = levels.count_levels(texts).counts
            shape = ReferenceColumn(name=column.name, categories=levels.levels, counts=tuple(counts), nulls=nulls)
        else:
            numbers = values.cast(pl.Float64).fill_null(np.nan).to_numpy()
            bins = Bins.of_numbers(numbers, REFERENCE_BINS)
            *counts, nulls = bins.count_numbers(numbers).counts
            shape = ReferenceColumn(name=column.name, edges=bins.edges, counts=tuple(counts), nulls=nulls)
        columns.append(shape)
    return Reference(columns=tuple(columns), rows=frame.height)


def timestamp(value: object) -> str | None:
    """RFC 3339 of a time in UTC, as polars yields it."""
    if not isinstance(value, datetime):
        return None
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


def write(folder: Path, graph: bytes, contract: ModelContract, bins: Reference) -> None:
    """Writes the three files of a published model into an existing folder."""
    (folder / GRAPH_FILE).write_bytes(graph)
    (folder / CONTRACT_FILE).write_text(canonical_json(contract), encoding="utf-8")
    (folder / REFERENCE_FILE).write_text(canonical_json(bins), encoding="utf-8")


def publish(store: ObjectStore, folder: Path, contract: ModelContract) -> str:
    """Writes a model's files below its digest, each once; its address.

    Equal content that is there already is left alone, other content is never replaced: ModelError, ModelAltered. The
    contract goes last, so that a model that is found is whole.
    """
    key = layout.model(contract.digest)
    for name in (GRAPH_FILE, REFERENCE_FILE, CONTRACT_FILE):
        content = (folder / name).read_bytes()
        if not store.put_if_absent(f"{key}/{name}", content) and store.get(f"{key}/{name}") != content:
            raise ModelError(
                "ModelAltered",
                f"{store.uri(key)}/{name} is not what its name says; a published model never changes.",
                remedy="Restore it from a backup, or remove the folder if nothing serves it.",
            )
    return store.uri(key)


def signature(contract: ModelContract) -> dict[str, str]:
    """The model's signature as MLflow stores it: JSON lists of named columns."""
    kinds = {"Integer": "double", "Float": "double", "Boolean": "double", "String": "string"}
    inputs = [
        {"name": column.name, "type": kinds[column.type], "required": not column.nullable} for column in contract.inputs
    ]
    outputs = [
        {"name": name, "type": "double", "required": True} for name in (CHOOSE_OUTPUT, VALUE_OUTPUT, MEAN_OUTPUT)
    ]
    return {"inputs": json.dumps(inputs), "outputs": json.dumps(outputs)}
