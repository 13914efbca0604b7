"""Tree ensembles in one neutral form, read from LightGBM, XGBoost and scikit-learn, and written as one ONNX node.

Converters disagree with the libraries where a float32 value meets a float64 cut. Here inputs are float32 already, and a
cut `x <= t` becomes `x <= t32` with t32 the greatest float32 that is not above t: the same for every float32 x.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from drivetrain.pipelines.graph import ML_DOMAIN, Floats, GraphBuilder, Singles

Mode: TypeAlias = Literal["BRANCH_LEQ", "BRANCH_LT"]
Document: TypeAlias = Any  # a library's JSON or model object; read here and nowhere else


@dataclass(frozen=True, slots=True)
class Tree:
    """Nodes in arrays, root first; a leaf has feature -1 and weights, [outputs] each."""

    feature: NDArray[np.int64]
    threshold: Singles
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    weights: Floats
    """[nodes, outputs]; zero on inner nodes."""


@dataclass(frozen=True, slots=True)
class Forest:
    """A sum of trees. `left` is taken where feature <= threshold (BRANCH_LEQ) or < (BRANCH_LT)."""

    trees: tuple[Tree, ...]
    mode: Mode
    outputs: int
    base: tuple[float, ...] = ()
    """Added to the sum, one number each output; none is zero."""

    def thresholds(self) -> dict[int, Singles]:
        """Cuts by feature, for the rows that test equality next to them."""
        found: dict[int, list[Singles]] = {}
        for tree in self.trees:
            for feature in np.unique(tree.feature[tree.feature >= 0]):
                found.setdefault(int(feature), []).append(tree.threshold[tree.feature == feature])
        return {feature: np.unique(np.concatenate(cuts)) for feature, cuts in sorted(found.items())}


def add_forest(graph: GraphBuilder, forest: Forest, features: str) -> str:
    """Adds the forest; returns [rows, outputs]."""
    sizes = [len(tree.feature) for tree in forest.trees]
    tree_ids = np.repeat(np.arange(len(sizes)), sizes)
    node_ids = np.concatenate([np.arange(size) for size in sizes])
    feature = np.concatenate([tree.feature for tree in forest.trees])
    leaf = feature < 0
    weights = np.concatenate([tree.weights for tree in forest.trees])
    rows, outputs = np.nonzero(leaf[:, None] & ((weights != 0) | (np.arange(forest.outputs) == 0)))
    base = {"base_values": [float(value) for value in forest.base]} if forest.base else {}
    return graph.add(
        "TreeEnsembleRegressor",
        features,
        domain=ML_DOMAIN,
        n_targets=forest.outputs,
        nodes_treeids=tree_ids.tolist(),
        nodes_nodeids=node_ids.tolist(),
        nodes_featureids=np.where(leaf, 0, feature).tolist(),
        nodes_modes=["LEAF" if is_leaf else forest.mode for is_leaf in leaf],
        nodes_values=np.concatenate([tree.threshold for tree in forest.trees]).tolist(),
        nodes_truenodeids=np.where(leaf, 0, np.concatenate([tree.left for tree in forest.trees])).tolist(),
        nodes_falsenodeids=np.where(leaf, 0, np.concatenate([tree.right for tree in forest.trees])).tolist(),
        target_treeids=tree_ids[rows].tolist(),
        target_nodeids=node_ids[rows].tolist(),
        target_ids=outputs.tolist(),
        target_weights=weights[rows, outputs].astype(np.float32).tolist(),
        aggregate_function="SUM",
        post_transform="NONE",
        **base,
    )


def rounded_down(thresholds: Floats) -> Singles:
    """The greatest float32 that is not above each threshold."""
    near = thresholds.astype(np.float32)
    below: Singles = np.where(near.astype(np.float64) > thresholds, np.nextafter(near, np.float32(-np.inf)), near)
    return below.astype(np.float32)


LIGHTGBM_ZERO = np.float32(1e-35)
"""LightGBM reads values from -1e-35 to 1e-35, ends included, as 0 when it predicts."""


def from_lightgbm(document: Document, outputs: int) -> Forest:
    """From `Booster.dump_model()`: trees take turns over the outputs; leaf values are shrunk already."""
    trees = tuple(
        _lightgbm_tree(tree["tree_structure"], index % outputs, outputs)
        for index, tree in enumerate(document["tree_info"])
    )
    return Forest(trees, "BRANCH_LEQ", outputs)


def _lightgbm_tree(structure: Document, output: int, outputs: int) -> Tree:
    nodes: list[Mapping[str, Document]] = []
    children: list[tuple[int, int]] = []

    def visit(node: Mapping[str, Document]) -> int:
        index = len(nodes)
        nodes.append(node)
        children.append((-1, -1))
        if "split_feature" in node:
            children[index] = (visit(node["left_child"]), visit(node["right_child"]))
        return index

    visit(structure)
    inner = np.array(["split_feature" in node for node in nodes])
    weights = np.zeros((len(nodes), outputs))
    weights[:, output] = [0.0 if "split_feature" in node else node["leaf_value"] for node in nodes]
    return Tree(
        feature=np.array([node.get("split_feature", -1) for node in nodes], dtype=np.int64),
        threshold=_beside_zero(
            np.array([node["threshold"] if i else 0.0 for node, i in zip(nodes, inner, strict=True)])
        ),
        left=np.array([left for left, _ in children], dtype=np.int64),
        right=np.array([right for _, right in children], dtype=np.int64),
        weights=weights,
    )


def _beside_zero(thresholds: Floats) -> Singles:
    """Cuts for float32 values: a value on the cut below zero counts as 0, which lies above that cut."""
    cuts = rounded_down(thresholds)
    return np.where(cuts == -LIGHTGBM_ZERO, np.nextafter(-LIGHTGBM_ZERO, np.float32(-1)), cuts).astype(np.float32)


def from_xgboost(raw: bytes, outputs: int, base: Sequence[float]) -> Forest:
    """From `Booster.save_raw("json")`; `base` is the base score as a margin, which the caller had set."""
    learner = json.loads(raw)["learner"]["gradient_booster"]["model"]
    trees = []
    for tree, output in zip(learner["trees"], learner["tree_info"], strict=True):
        left = np.array(tree["left_children"], dtype=np.int64)
        conditions = np.array(tree["split_conditions"], dtype=np.float32)
        leaf = left < 0
        weights = np.zeros((len(left), outputs))
        weights[:, output] = np.where(leaf, conditions, 0)
        trees.append(
            Tree(
                feature=np.where(leaf, -1, np.array(tree["split_indices"], dtype=np.int64)),
                threshold=np.where(leaf, np.float32(0), conditions),
                left=left,
                right=np.array(tree["right_children"], dtype=np.int64),
                weights=weights,
            )
        )
    return Forest(tuple(trees), "BRANCH_LT", outputs, tuple(base))


def from_sklearn(estimators: Sequence[Document], outputs: int) -> Forest:
    """From a random forest's trees: the mean of their leaves (class shares, or the mean target)."""
    trees = []
    for estimator in estimators:
        tree = estimator.tree_
        leaf = tree.children_left < 0
        values = tree.value[:, 0, :]
        # A binary forest keeps both shares; one says it all.
        shares = values[:, 1:] if outputs == 1 and values.shape[1] == 2 else values
        trees.append(
            Tree(
                feature=np.where(leaf, -1, tree.feature).astype(np.int64),
                threshold=np.where(leaf, np.float32(0), rounded_down(np.asarray(tree.threshold, dtype=np.float64))),
                left=np.asarray(tree.children_left, dtype=np.int64),
                right=np.asarray(tree.children_right, dtype=np.int64),
                weights=np.where(leaf[:, None], shares, 0) / len(estimators),
            )
        )
    return Forest(tuple(trees), "BRANCH_LEQ", outputs)
