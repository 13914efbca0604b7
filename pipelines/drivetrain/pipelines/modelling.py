"""From rows to a published model: features, candidates, tuning, ensembles, cross-fitted halves, evaluation, gates."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import polars as pl

from drivetrain.api.canonical import digest
from drivetrain.api.errors import InvalidSpecError, ModelError, Problem
from drivetrain.api.model import ModelContract, Reference
from drivetrain.api.runspec import RunSpec, objective_hash
from drivetrain.api.v1alpha1.trainingrun import GateResult, SliceMetric
from drivetrain.pipelines.bench import Bench, Trial, keeps_effects
from drivetrain.pipelines.ensembles import Single, combinations, describe
from drivetrain.pipelines.estimators import refusals
from drivetrain.pipelines.evaluation import Latency
from drivetrain.pipelines.features import FeaturePlan
from drivetrain.pipelines.gates import approved
from drivetrain.pipelines.judgement import Champion, Judging, Verdict, open_champion
from drivetrain.pipelines.line import FeatureEngineering, Refusal, Training, Trials, best_of_each, recipe_of
from drivetrain.pipelines.metrics import check_metric
from drivetrain.pipelines.publication import digest_of, reference, timestamp, write
from drivetrain.pipelines.rows import DECIDED_AT, TrainingRows
from drivetrain.pipelines.stage import Stage, StageName
from drivetrain.pipelines.support import lever_effect, supported
from drivetrain.pipelines.trials import TrialLog
from drivetrain.pipelines.tuning import propose
from drivetrain.pipelines.work import TrialRunner

T = TypeVar("T")


class Stages(Protocol):
    """Runs a stage, or finds its output."""

    def run(self, stage: Stage[T]) -> T:
        """The stage's output."""
        ...


@dataclass(frozen=True, slots=True)
class BuiltModel:
    """A model folder and all that was found out about it."""

    folder: Path
    """model.onnx, contract.json, reference.json."""
    contract: ModelContract
    winner: str
    """Name of the candidate, or the ensemble's method."""
    parameters: Mapping[str, bool | int | float | str]
    metrics: Mapping[str, float]
    """On the test rows; `dummy.*` and `champion.*` beside them."""
    slices: tuple[SliceMetric, ...]
    """The worst first."""
    worst: pl.DataFrame
    """The rows with the largest loss, columns @truth, @prediction, @loss added."""
    gates: tuple[GateResult, ...]
    latency: Latency
    trials: tuple[Trial, ...]
    refusals: tuple[Refusal, ...]
    """Models that were not taken because a library refused or their graph differed from it."""

    @property
    def approved(self) -> bool:
        """Whether every gate that counts was passed."""
        return approved(self.gates)


def build(
    rows: TrainingRows,
    spec: RunSpec,
    runner: TrialRunner,
    log: TrialLog,
    stages: Stages,
    *,
    champion: Path | None,
    folder: Path,
) -> BuiltModel:
    """Builds a model into `folder`, which exists and is empty.

    Everything random comes from the spec's seed, so equal rows, spec and trial log give an equal graph file. Raises
    InvalidSpecError for combinations that are not offered, ContractError for rows that cannot train, and ModelError
    when no candidate can be published.
    """
    _check(spec)
    rival = None if champion is None else open_champion(champion)
    bench = Bench(rows, spec, runner, log, FeaturePlan(inputs=(), features=(), directions=()))
    facts = bench.facts()
    bench.plan = stages.run(FeatureEngineering(rows, spec, facts))
    trials = _try_all(bench, stages, _first(spec, rival))
    ranked = tuple(trial.recipe for trial in bench.ranked(trials))
    failed = tuple(Refusal(name=describe(one.recipe)[0], reason=one.failure) for one in trials if one.failure)
    if not ranked:
        reasons = " ".join(f"{one.name}: {one.reason}" for one in failed)
        raise ModelError("NoModel", f"No candidate could be fitted. {reasons}"[:1000])
    trained = stages.run(Training(bench, ranked))
    judging = Judging(rows, spec, bench.plan, trained.graph, trained.equality, rival, facts)
    judgement = stages.run(judging)
    verdict = judgement.verdict
    bins = reference(rows.frame.filter(pl.Series(rows.fitted)), spec.data, bench.plan)
    contract = _contract(bench, trained.graph, bins, verdict)
    write(folder, trained.graph, contract, bins)
    winner, parameters = describe(trained.recipe)
    return BuiltModel(
        folder=folder,
        contract=contract,
        winner=winner,
        parameters=parameters,
        metrics=verdict.metrics,
        slices=verdict.slices,
        worst=judgement.worst,
        gates=verdict.gates,
        latency=verdict.latency,
        trials=trials,
        refusals=failed + trained.refusals,
    )


def _check(spec: RunSpec) -> None:
    """Raises InvalidSpecError before anything is fitted."""
    problems: list[Problem] = []
    target, run = spec.data.target, spec.spec
    check_metric(spec.objective.model_metric.name, target, "objective.modelMetric")
    if run.tuning.metric is not None:
        check_metric(run.tuning.metric, target, "tuning.metric")
    for gate in run.evaluation.gates:
        check_metric(gate.metric, target, "evaluation.gates")
        if gate.slice is not None and gate.slice not in spec.data.slices:
            cause = f"{gate.slice} is no slice of the data."
            problems.append(Problem("evaluation.gates.slice", cause, "List it in data.slices."))
    for candidate in spec.spec.candidates:
        problems += refusals(candidate.estimator, spec.data.target, candidate.parameters)
        for name, search in candidate.search.items():
            # A range is judged by the kind of number that it draws.
            drawn = search.choices or ((1,) if search.type == "Integer" else (0.5,))
            for value in drawn:
                found = refusals(candidate.estimator, spec.data.target, {name: value})
                problems += [problem for problem in found if problem not in problems]
    if "Stacking" in spec.spec.ensemble.methods and len(spec.spec.candidates) < 2:
        cause, remedy = "Stacking combines candidates, and there is one.", "Declare another, or leave Stacking out."
        problems.append(Problem("ensemble.methods", cause, remedy))
    if problems:
        raise InvalidSpecError(tuple(problems))


def _first(spec: RunSpec, rival: Champion | None) -> tuple[Single, ...]:
    """What the champion was made of, where the run starts from it and still declares those candidates."""
    if rival is None or spec.decisions.start_from != "Champion":
        return ()
    declared = {(candidate.name, candidate.estimator) for candidate in spec.spec.candidates}
    return tuple(one for one in recipe_of(rival.graph) if (one.candidate, one.estimator) in declared)


def _try_all(bench: Bench, stages: Stages, first: tuple[Single, ...]) -> tuple[Trial, ...]:
    """Full circle first: candidates as declared, then the search, then ensembles of what was found."""
    run = bench.spec.spec
    proposals = propose(run.candidates, run.tuning, first)
    trials = stages.run(Trials(StageName.SELECTION, bench, proposals.fixed))
    if proposals.searched:
        trials += stages.run(Trials(StageName.TUNING, bench, proposals.searched))
    if run.ensemble.methods:
        ranked = bench.ranked(trials)
        # One member that breaks a declared effect can break that of the whole.
        members = [trial for trial in ranked if keeps_effects(trial)] or ranked
        combined = combinations(run.ensemble.methods, best_of_each(members))
        if combined:
            trials += stages.run(Trials(StageName.ENSEMBLES, bench, combined))
    return trials


def _contract(bench: Bench, graph: bytes, bins: Reference, verdict: Verdict) -> ModelContract:
    rows, spec = bench.rows, bench.spec
    seen = rows.frame.filter(pl.Series(rows.fitted))
    return ModelContract(
        project=spec.project,
        project_uid=spec.project_uid,
        graph=digest_of(graph),
        reference=digest(bins),
        data_version=rows.version,
        objective_hash=objective_hash(spec.objective),
        target=spec.data.target,
        inputs=bench.plan.inputs,
        support=supported(seen, spec.levers),
        lever_effect=lever_effect(seen),
        multipliers=verdict.multipliers,
        trained_until=timestamp(seen[DECIDED_AT].max()),
        window=spec.spec.window,
    )
