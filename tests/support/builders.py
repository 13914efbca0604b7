"""Valid resources to start from: `a_project().with_lever("price", maximum="3").build()`.

A builder is a value: each `with_…` returns another one. `document()` is the manifest, `build()` the parsed resource.
Anything without a method of its own is set by its path: `with_field("spec.levers[0].step", "0.3")`.
"""

import copy
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Self, TypeVar

from drivetrain.api.meta import API_VERSION, Resource
from drivetrain.api.v1alpha1.deployment import Deployment
from drivetrain.api.v1alpha1.project import DrivetrainProject
from drivetrain.api.v1alpha1.trainingrun import TrainingRun

R = TypeVar("R", bound=Resource)
Manifest = dict[str, Any]  # the border: what a person writes, before it is parsed

GAP = "price - discount - rival_price"
_STEP = re.compile(r"([^.\[\]]+)|\[(\d+)\]")


@dataclass(frozen=True)
class Builder(Generic[R]):
    """A manifest of one kind that can be varied."""

    kind: type[R]
    manifest: Manifest

    def document(self) -> Manifest:
        """A copy of the manifest."""
        return copy.deepcopy(self.manifest)

    def build(self) -> R:
        """The parsed resource."""
        return self.kind.parse(self.document())

    def with_field(self, path: str, value: object) -> Self:
        """Sets the field at a path such as `spec.levers[0].step`; missing maps on the way are made."""
        return self._changed(path, lambda parent, key: parent.__setitem__(key, copy.deepcopy(value)))

    def without_field(self, path: str) -> Self:
        """Removes the field at a path."""
        return self._changed(path, lambda parent, key: parent.__delitem__(key))

    def with_metadata(self, **fields: object) -> Self:
        """Sets metadata by its camelCase names: `uid="u1", generation=2, creationTimestamp="2026-01-01T00:00:00Z"`."""
        return self._with({**self.document(), "metadata": {**self.manifest["metadata"], **fields}})

    def named(self, name: str) -> Self:
        """Sets metadata.name."""
        return self.with_metadata(name=name)

    def _with(self, manifest: Manifest) -> Self:
        return type(self)(self.kind, manifest)

    def _changed(self, path: str, change: Callable[[Any, Any], None]) -> Self:
        manifest = self.document()
        *steps, last = [name or int(index) for name, index in _STEP.findall(path)]
        parent: Any = manifest
        for step in steps:
            parent = parent.setdefault(step, {}) if isinstance(parent, dict) else parent[step]
        change(parent, last)
        return self._with(manifest)


class ProjectBuilder(Builder[DrivetrainProject]):
    """A project that sells one thing at a price and a discount."""

    def with_lever(self, name: str, **fields: object) -> Self:
        """Adds a lever with its column, or changes the fields of an existing one."""
        manifest = self.document()
        levers = manifest["spec"]["levers"]
        known = next((lever for lever in levers if lever["name"] == name), None)
        if known is not None:
            known.update(fields)
            return self._with(manifest)
        categorical = fields.get("type") == "Categorical"
        ready = {} if categorical else {"type": "Continuous", "minimum": "0", "maximum": "1", "step": "0.1"}
        levers.append({"name": name, **ready, **fields})
        baseline = manifest["spec"]["objective"]["baseline"]
        if categorical or "action" in baseline:
            # A choice cannot be computed: today's policy becomes a fixed action.
            action = {lever["name"]: lever.get("minimum") or lever["choices"][0] for lever in levers}
            manifest["spec"]["objective"]["baseline"] = {"action": action}
        elif "expression" in baseline:
            baseline["expression"][name] = levers[-1]["minimum"]
        return self._with(manifest).with_column(name, role="Lever", type="String" if categorical else "Float")

    def without_lever(self, name: str) -> Self:
        """Removes a lever, its column and its baseline."""
        manifest = self.document()
        spec = manifest["spec"]
        spec["levers"] = [lever for lever in spec["levers"] if lever["name"] != name]
        spec["data"]["columns"] = [column for column in spec["data"]["columns"] if column["name"] != name]
        for form in ("action", "expression"):
            spec["objective"]["baseline"].get(form, {}).pop(name, None)
        return self._with(manifest)

    def with_column(self, name: str, **fields: object) -> Self:
        """Adds a column (Context and Float unless said otherwise), or changes the fields of an existing one."""
        manifest = self.document()
        columns = manifest["spec"]["data"]["columns"]
        known = next((column for column in columns if column["name"] == name), None)
        if known is not None:
            known.update(fields)
        else:
            columns.append({"name": name, "role": "Context", "type": "Float", **fields})
        return self._with(manifest)

    def without_column(self, name: str) -> Self:
        """Removes a column."""
        columns = self.manifest["spec"]["data"]["columns"]
        return self.with_field("spec.data.columns", [column for column in columns if column["name"] != name])

    def with_value(self, expression: str) -> Self:
        """Sets what a decision is worth."""
        return self.with_field("spec.objective.value", expression)

    def with_target(self, **fields: object) -> Self:
        """Replaces the target."""
        return self.with_field("spec.data.target", fields)

    def with_constraint(self, expression: str) -> Self:
        """Adds a rule that every action must satisfy."""
        known = self.manifest["spec"]["objective"].get("constraints", [])
        added = {"scope": "PerDecision", "expression": expression}
        return self.with_field("spec.objective.constraints", [*known, added])

    def with_portfolio(self, metric: str, **fields: object) -> Self:
        """Adds a bound on the mean of a metric."""
        known = self.manifest["spec"]["objective"].get("constraints", [])
        added = {"scope": "Portfolio", "metric": metric, "window": "1d", **fields}
        return self.with_field("spec.objective.constraints", [*known, added])

    def with_candidate(self, name: str, estimator: str, **fields: object) -> Self:
        """Adds a candidate."""
        known = self.manifest["spec"]["training"]["candidates"]
        return self.with_field("spec.training.candidates", [*known, {"name": name, "estimator": estimator, **fields}])

    def with_serving(self, **fields: object) -> Self:
        """Sets the serving template; the project has one by default."""
        return self.with_field("spec.serving", {"auth": {"secretName": "keys"}, **fields})

    def without_serving(self) -> Self:
        """Removes the serving template: somebody else makes the Deployment."""
        return self.without_field("spec.serving")


def a_project(name: str = "shop", namespace: str = "default") -> ProjectBuilder:
    """A valid project: Binary target, two numeric levers, shelf prices as today's policy, logistic regression."""
    return ProjectBuilder(
        DrivetrainProject,
        _manifest("DrivetrainProject", name, namespace)
        | {
            "spec": {
                "objective": {
                    "kpi": {"name": "margin", "unit": "USD", "minimum": "-0.2", "maximum": "1.0"},
                    "value": "purchase * (price - discount - 1.1)",
                    "baseline": {"expression": {"price": "shelf_price", "discount": "shelf_discount"}},
                    "unit": "visit_id",
                    "modelMetric": {"name": "logLoss", "direction": "Minimize"},
                    "constraints": [{"scope": "PerDecision", "expression": "price - discount >= 1.3"}],
                },
                "levers": [
                    _lever("price", "Decreasing", "1.69", "2.09", "0.05"),
                    _lever("discount", "Increasing", "0", "0.5", "0.1"),
                ],
                "data": {
                    "store": {"uri": "s3://shop/data", "credentials": {"secretName": "s3"}},
                    "sources": [
                        {"name": "visits", "uri": "s3://shop/visits", "format": "Parquet"},
                        {"name": "log", "origin": "Collected", "format": "DecisionLog"},
                    ],
                    "columns": [
                        {"name": "visit_id", "role": "Identifier", "type": "String"},
                        {"name": "week", "role": "Uncontrolled", "type": "Integer"},
                        {"name": "store", "role": "Context", "type": "String"},
                        *(
                            {"name": column, "role": "Context", "type": "Float", "minimum": low, "maximum": high}
                            for column, low, high in (
                                ("shelf_price", 1.69, 2.09),
                                ("shelf_discount", 0, 0.4),
                                ("rival_price", 1.5, 2.5),
                            )
                        ),
                        {"name": "price", "role": "Lever", "type": "Float"},
                        {"name": "discount", "role": "Lever", "type": "Float"},
                        {"name": "price_gap", "role": "Derived", "type": "Float", "expression": GAP},
                        {"name": "propensity", "role": "Assignment", "type": "Float"},
                        {"name": "purchase", "role": "AfterAction", "type": "Boolean"},
                    ],
                    "target": {"name": "purchase", "type": "Binary"},
                    "slices": ["store"],
                },
                "training": {"candidates": [{"name": "logistic", "estimator": "LogisticRegression"}]},
                "serving": {"auth": {"secretName": "keys"}},
            }
        },
    )


def a_run(name: str = "shop-1", namespace: str = "default", *, project: str = "shop") -> Builder[TrainingRun]:
    """A valid run of `a_project()`."""
    spec = {"project": project, "candidates": [{"name": "logistic", "estimator": "LogisticRegression"}]}
    return Builder(TrainingRun, _manifest("TrainingRun", name, namespace) | {"spec": spec})


def a_deployment(name: str = "shop", namespace: str = "default", *, project: str = "shop") -> Builder[Deployment]:
    """A valid Deployment of `a_project()`."""
    spec = {"project": project, "auth": {"secretName": "keys"}}
    return Builder(Deployment, _manifest("Deployment", name, namespace) | {"spec": spec})


def _manifest(kind: str, name: str, namespace: str) -> Manifest:
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name, "namespace": namespace}}


def _lever(name: str, effect: str, minimum: str, maximum: str, step: str) -> Manifest:
    bounds = {"minimum": minimum, "maximum": maximum, "step": step}
    return {"name": name, "type": "Continuous", "effect": effect, **bounds}
