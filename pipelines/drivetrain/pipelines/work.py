"""What trial workers hold and do: the prepared rows, and one fit at a time."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import lightgbm
import numpy as np
import xgboost
from numpy.typing import NDArray

from drivetrain.api.errors import DrivetrainError
from drivetrain.api.v1alpha1.dataset import Target
from drivetrain.pipelines.ensembles import Recipe, fit
from drivetrain.pipelines.graph import Singles
from drivetrain.pipelines.metrics import measure
from drivetrain.pipelines.models import Sample, Scorer
from drivetrain.pipelines.response import Probe, violations

Rows = Literal["train", "first", "second"]
"""train: the training rows. first, second: the cross-fitted halves of training and validation rows together."""


@dataclass(frozen=True, slots=True)
class Material:
    """Everything that fits and scores need; handed to each worker once."""

    sample: Sample
    target: Target
    train: NDArray[np.bool_]
    validation: NDArray[np.bool_]
    half: NDArray[np.int8]
    probes: tuple[Probe, ...] = ()
    """Lever responses on validation rows."""

    def rows(self, name: Rows) -> Sample:
        """The rows to fit on; those of weight 0 are left out."""
        counted = self.sample.weight > 0
        if name == "train":
            return self.sample.take(self.train & counted)
        chosen = self.half == (0 if name == "first" else 1)
        return self.sample.take((self.train | self.validation) & chosen & counted)


@dataclass(frozen=True, slots=True)
class Task:
    """One fit."""

    recipe: Recipe
    rows: Rows
    seed: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """A finished fit; `metrics` and `violations` on the validation rows when the training rows were fitted."""

    seconds: float
    metrics: Mapping[str, float]
    violations: float = 0.0
    """Share of lever steps against a declared effect."""
    model: Scorer | None = None
    """For the halves."""
    failure: str = ""
    """Why the library refused; the candidate fails and the run goes on."""


class TrialRunner(Protocol):
    """Runs fits, some at a time."""

    def start(self) -> None:
        """Begins to start the workers, because fits are likely to come; `load` does so at the latest."""
        ...

    def load(self, material: Material) -> None:
        """Hands the rows to all workers, once; replaces earlier ones."""
        ...

    def run(self, tasks: Sequence[Task]) -> Iterator[tuple[int, Outcome]]:
        """Index and outcome of each task, as they end."""
        ...


class LocalTrials:
    """Runs fits one after another in this process."""

    def __init__(self) -> None:
        self._material: Material | None = None

    def start(self) -> None:
        """Nothing: this process runs."""

    def load(self, material: Material) -> None:
        self._material = material

    def run(self, tasks: Sequence[Task]) -> Iterator[tuple[int, Outcome]]:
        assert self._material is not None, "load comes first"
        for index, task in enumerate(tasks):
            yield index, perform(task, self._material)


def perform(task: Task, material: Material) -> Outcome:
    """Does one task; a library's refusal becomes the outcome's failure."""
    started = time.perf_counter()
    try:
        model = fit(task.recipe, material.rows(task.rows), material.target, task.seed)
    except (ValueError, DrivetrainError, lightgbm.basic.LightGBMError, xgboost.core.XGBoostError) as error:
        return Outcome(time.perf_counter() - started, {}, failure=f"{type(error).__name__}: {error}"[:500])
    if task.rows != "train":
        return Outcome(time.perf_counter() - started, {}, model=model)
    held = material.sample.take(material.validation & (material.sample.weight > 0))
    metrics = measure(held.target, model.scores(held.plain, held.scaled), held.weight, material.target)

    def score(plain: Singles, scaled: Singles) -> Singles:
        return model.scores(plain, scaled).astype(np.float32)

    broken = max((violations(probe, score(probe.plain, probe.scaled)) for probe in material.probes), default=0.0)
    return Outcome(time.perf_counter() - started, metrics, broken)
