"""The modelling stages of the assembly line, each with typed output and files from which a rerun reads it back."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from pydantic import TypeAdapter

from drivetrain.api.canonical import Hashable, canonical_json
from drivetrain.api.errors import ModelError
from drivetrain.api.meta import ApiModel
from drivetrain.api.model import GRAPH_FILE
from drivetrain.api.runspec import RunSpec
from drivetrain.pipelines.bench import Bench, Trial
from drivetrain.pipelines.ensembles import Baseline, Recipe, Single, describe
from drivetrain.pipelines.equality import Equality, Published, check_equality
from drivetrain.pipelines.evaluation import responses
from drivetrain.pipelines.features import FeaturePlan, directed, fit_features
from drivetrain.pipelines.gates import EFFECT_BOUND
from drivetrain.pipelines.graph import Session
from drivetrain.pipelines.publication import compose
from drivetrain.pipelines.rows import TrainingRows
from drivetrain.pipelines.stage import StageName
from drivetrain.pipelines.work import Task

TRIALS: TypeAdapter[tuple[Trial, ...]] = TypeAdapter(tuple[Trial, ...])
RECIPE: TypeAdapter[Recipe] = TypeAdapter(Recipe)
RECIPE_FACT = "drivetrain.recipe"
"""Key of a graph's metadata that tells how it was made, so that a later run can start from there."""


@dataclass(frozen=True, slots=True)
class FeatureEngineering:
    """Learns the feature plan from the training rows that count."""

    rows: TrainingRows
    spec: RunSpec
    facts: Hashable
    name = StageName.FEATURES
    code = 1

    def inputs(self) -> Hashable:
        return {"facts": self.facts}

    def run(self, advance: Callable[[float], None]) -> FeaturePlan:
        counted = self.rows.train & (self.rows.weight > 0)
        return fit_features(self.rows.frame.filter(pl.Series(counted)), self.spec.data, self.spec.levers)

    def save(self, output: FeaturePlan, folder: Path) -> None:
        (folder / "features.json").write_text(canonical_json(output), encoding="utf-8")

    def load(self, folder: Path) -> FeaturePlan:
        return FeaturePlan.model_validate_json((folder / "features.json").read_bytes())


@dataclass(frozen=True, slots=True)
class Trials:
    """Some recipes tried on the validation rows: the candidates as declared, those of the search, or ensembles."""

    name: StageName
    bench: Bench
    recipes: tuple[Recipe, ...]
    code = 1

    def inputs(self) -> Hashable:
        return {"facts": self.bench.facts(), "recipes": [RECIPE.dump_python(one, mode="json") for one in self.recipes]}

    def run(self, advance: Callable[[float], None]) -> tuple[Trial, ...]:
        return self.bench.trials(self.recipes, advance)

    def save(self, output: tuple[Trial, ...], folder: Path) -> None:
        (folder / "trials.json").write_bytes(TRIALS.dump_json(output))

    def load(self, folder: Path) -> tuple[Trial, ...]:
        return TRIALS.validate_json((folder / "trials.json").read_bytes())


class Refusal(ApiModel):
    """A model that was not taken, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Trained:
    """The graph of the best recipe whose graph equals its library."""

    graph: bytes
    recipe: Recipe
    refusals: tuple[Refusal, ...]
    equality: Equality


@dataclass(frozen=True, slots=True)
class Training:
    """Fits the best recipe twice, once on each half, and composes both as one graph; the next best where that fails.

    It also fails where the halves break a declared lever effect that the trial kept. When all recipes do, the best one
    is taken, and the gate says so.
    """

    bench: Bench
    ranked: tuple[Recipe, ...]
    name = StageName.TRAINING
    code = 2

    def inputs(self) -> Hashable:
        return {"facts": self.bench.facts(), "ranked": [RECIPE.dump_python(one, mode="json") for one in self.ranked]}

    def run(self, advance: Callable[[float], None]) -> Trained:
        refusals: list[Refusal] = []
        against_effect: Trained | None = None
        for recipe in self.ranked:
            found = self._tried(recipe, refusals)
            if found is None:
                continue
            broken = self._broken_effects(found.graph)
            if not broken:
                return found
            refusals.append(Refusal(name=describe(recipe)[0], reason=f"breaks the declared effect of {broken}"))
            against_effect = against_effect or found
        if against_effect is not None:
            return against_effect
        reasons = " ".join(f"{one.name}: {one.reason}" for one in refusals)
        raise ModelError("NoModel", f"No candidate could be published. {reasons}"[:1000])

    def _tried(self, recipe: Recipe, refusals: list[Refusal]) -> Trained | None:
        bench, name = self.bench, describe(recipe)[0]
        seed = bench.spec.spec.tuning.seed
        outcomes = dict(bench.fits([Task(recipe, "first", seed), Task(recipe, "second", seed)]))
        choose, value = outcomes[0].model, outcomes[1].model
        if choose is None or value is None:
            refusals.append(Refusal(name=name, reason=outcomes[0].failure or outcomes[1].failure))
            return None
        facts = {RECIPE_FACT: RECIPE.dump_json(recipe).decode()}
        graph = compose(bench.plan, choose, value, bench.spec.data.target, facts)
        held_out = bench.rows.frame.filter(pl.Series(~bench.rows.train))
        equality = check_equality(Published(Session(graph), bench.plan, choose, value), held_out, bench.spec.levers)
        if not equality.holds:
            reason = f"graph and library differ by {equality.difference:.3g} ({equality.where})"
            refusals.append(Refusal(name=name, reason=reason))
            return None
        return Trained(graph, recipe, tuple(refusals), equality)

    def _broken_effects(self, graph: bytes) -> str:
        bench = self.bench
        held_out = bench.rows.frame.filter(pl.Series(~bench.rows.train))
        levers = directed(bench.spec.levers, bench.spec.data.target)
        shares = responses(Session(graph), held_out, bench.plan.inputs, levers)
        return ", ".join(lever for lever, share in shares.items() if share > EFFECT_BOUND)

    def save(self, output: Trained, folder: Path) -> None:
        (folder / GRAPH_FILE).write_bytes(output.graph)
        summary = {
            "recipe": RECIPE.dump_python(output.recipe, mode="json"),
            "refusals": [one.model_dump(mode="json") for one in output.refusals],
            "equality": [output.equality.difference, output.equality.rows, output.equality.where],
        }
        (folder / "training.json").write_text(canonical_json(summary), encoding="utf-8")

    def load(self, folder: Path) -> Trained:
        summary = json.loads((folder / "training.json").read_bytes())
        difference, rows, where = summary["equality"]
        return Trained(
            (folder / GRAPH_FILE).read_bytes(),
            RECIPE.validate_python(summary["recipe"]),
            tuple(Refusal.model_validate(one) for one in summary["refusals"]),
            Equality(difference, rows, where),
        )


def recipe_of(graph: Session) -> tuple[Single, ...]:
    """The candidates that a published graph was made of; none for a graph made elsewhere."""
    fact = graph.facts.get(RECIPE_FACT)
    if fact is None:
        return ()
    recipe = RECIPE.validate_json(fact)
    if isinstance(recipe, Baseline):
        return ()
    return (recipe,) if isinstance(recipe, Single) else recipe.members


def best_of_each(ranked: Sequence[Trial]) -> tuple[Single, ...]:
    """Each candidate with its best parameters, the best candidate first."""
    best: dict[str, Single] = {}
    for trial in ranked:
        if isinstance(trial.recipe, Single):
            best.setdefault(trial.recipe.candidate, trial.recipe)
    return tuple(best.values())
