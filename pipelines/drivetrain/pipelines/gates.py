"""What a model must pass before it may serve: thresholds, paired comparisons, lever effects, latency, equality."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from drivetrain.api.v1alpha1.dataset import Target
from drivetrain.api.v1alpha1.lever import Lever
from drivetrain.api.v1alpha1.training import Gate
from drivetrain.api.v1alpha1.trainingrun import GateResult
from drivetrain.evidence import clustered
from drivetrain.evidence.paired import compare_losses
from drivetrain.pipelines.equality import TOLERANCE, Equality
from drivetrain.pipelines.evaluation import SLICE_ROWS, Judged, Latency, slice_rows
from drivetrain.pipelines.graph import Floats
from drivetrain.pipelines.metrics import badness, losses, measure

LEVEL = 0.95
RESAMPLES = 400
EFFECT_BOUND = 0.01
"""Share of grid steps against a declared effect that still passes."""
ROW_WISE = frozenset({"logLoss", "accuracy", "mae"})
"""Metrics that are means of row losses; intervals of the others are by paired bootstrap."""


@dataclass(frozen=True, slots=True)
class Question:
    """A gate as it is put to some rows."""

    gate: Gate
    name: str
    target: Target
    seed: int
    level: float


@dataclass(frozen=True, slots=True)
class Contest:
    """The rows that gates judge on, with each model's scores."""

    candidate: Judged
    dummy: Floats
    champion: Floats | None
    """None where no champion can be scored on these rows."""
    no_champion: str
    """Why."""
    suffix: str = ""
    """Added to the gates' names."""


def judge(gates: Sequence[Gate], contest: Contest, target: Target, seed: int) -> tuple[GateResult, ...]:
    """Each declared gate's verdict on these rows."""
    return tuple(_judged(gate, contest, target, seed) for gate in gates)


def effect_gates(
    levers: Sequence[Lever], shares: Mapping[str, float], loose: Sequence[str] = ()
) -> tuple[GateResult, ...]:
    """Whether the response to each lever keeps to its declared effect; `loose` ones lack constraints."""
    results = []
    for lever in levers:
        if lever.name not in shares:
            continue
        share = shares[lever.name]
        word = "rises" if lever.effect == "Increasing" else "falls"
        message = f"The prediction {word} with {lever.name} but for {share:.1%} of its steps."
        if lever.name in loose:
            message += " Constraints cannot promise it: a Derived column moves with it in no one direction."
        verdict = "Passed" if share <= EFFECT_BOUND else "Failed"
        name = f"{lever.name} {lever.effect}"
        results.append(GateResult(name=name, verdict=verdict, value=share, bound=EFFECT_BOUND, message=message))
    return tuple(results)


def latency_gate(measured: Latency, limit_ms: int) -> GateResult:
    """Whether one decision's evaluation is fast enough."""
    return GateResult(
        name="latency",
        verdict="Passed" if measured.p99_ms <= limit_ms else "Failed",
        value=measured.p99_ms,
        bound=limit_ms,
        message=f"{measured.actions} actions of one row: p50 {measured.p50_ms:g} ms, p99 {measured.p99_ms:g} ms.",
    )


def equality_gate(found: Equality) -> GateResult:
    """Whether graph and library agree; a model that failed it is not offered to this gate at all."""
    return GateResult(
        name="graph equals library",
        verdict="Passed" if found.holds else "Failed",
        value=found.difference if np.isfinite(found.difference) else None,
        bound=TOLERANCE,
        message=f"Largest difference over {found.rows} rows: {found.difference:.2g} ({found.where}).",
    )


def missing_rows(gates: Sequence[Gate], suffix: str, rows: int, needed: int) -> tuple[GateResult, ...]:
    """The verdicts where too few rows are there to judge on."""
    message = f"{rows} rows; {needed} are needed. Explore more, or wait for more outcomes to mature."
    return tuple(
        GateResult(name=_name(gate, suffix), verdict="Failed", value=rows, bound=needed, message=message)
        for gate in gates
    )


def _name(gate: Gate, suffix: str) -> str:
    against = f" versus {gate.versus}" if gate.versus else ""
    where = f" by {gate.slice}" if gate.slice else ""
    return f"{gate.metric}{against}{where}{suffix}"[:128]


def _judged(gate: Gate, contest: Contest, target: Target, seed: int) -> GateResult:
    name = _name(gate, contest.suffix)
    rival: Floats | None = None
    if gate.versus is not None:
        rival = contest.dummy if gate.versus == "Dummy" else contest.champion
        if rival is None:
            return GateResult(name=name, verdict="NotIdentified", message=contest.no_champion)
    if gate.slice is None:
        return _whole(Question(gate, name, target, seed, LEVEL), contest.candidate, rival)
    parts = [
        (value, rows)
        for value, rows in slice_rows(contest.candidate.frame, gate.slice)
        if np.count_nonzero(rows) >= SLICE_ROWS
    ]
    if not parts:
        message = f"No value of {gate.slice} has {SLICE_ROWS} rows."
        return GateResult(name=name, verdict="NotIdentified", message=message)
    # Bonferroni: the slices are judged together.
    question = Question(gate, name, target, seed, level=1 - (1 - LEVEL) / len(parts))
    results = [
        (value, _whole(question, contest.candidate.take(rows), None if rival is None else rival[rows]))
        for value, rows in parts
    ]
    worst, result = max(results, key=lambda one: _excess(gate, one[1]))
    failed = [value for value, one in results if one.verdict == "Failed"]
    verdict = f"Fails for {', '.join(failed)[:300]}." if failed else f"Holds for all {len(results)} values."
    message = f"{verdict} Worst: {gate.slice}={worst}. {result.message}"[:1024]
    return result.model_copy(update={"message": message})


def _excess(gate: Gate, result: GateResult) -> tuple[bool, float]:
    """Orders verdicts: failed ones last, then by how far the measured value lies on the bad side."""
    if result.value is None:
        return False, float("-inf")
    return result.verdict == "Failed", result.value if gate.versus else badness(gate.metric, result.value)


def _whole(question: Question, judged: Judged, rival: Floats | None) -> GateResult:
    gate, name = question.gate, question.name
    own = measure(judged.truth, judged.scores, judged.weight, question.target).get(gate.metric)
    if own is None:
        message = f"{gate.metric} is not defined on these {len(judged)} rows."
        return GateResult(name=name, verdict="NotIdentified", message=message)
    if gate.threshold is not None:
        passed = badness(gate.metric, own) <= badness(gate.metric, gate.threshold)
        message = f"{gate.metric} is {own:.4g} on {len(judged)} rows."
        verdict = "Passed" if passed else "Failed"
        return GateResult(name=name, verdict=verdict, value=own, bound=gate.threshold, message=message)
    assert rival is not None
    clusters = clustered.count(judged.clusters)
    compared = None
    if clusters >= 2:
        compare = _mean_difference if gate.metric in ROW_WISE else _bootstrap
        compared = compare(question, judged, rival)
    if compared is None:
        message = f"{len(judged)} rows in {clusters} independent groups give no interval."
        return GateResult(name=name, verdict="NotIdentified", message=message)
    estimate, upper = compared
    # With a margin of 0 "not worse" asks for proof of better; equal models do not give it.
    passed = upper < gate.margin
    message = (
        f"{gate.metric} is {own:.4g}; worse than the {str(gate.versus).lower()}'s by {estimate:+.3g}, at most "
        f"{upper:+.3g} ({question.level:.4g} interval, {len(judged)} rows); allowed: less than {gate.margin:g}."
    )
    verdict = "Passed" if passed else "Failed"
    return GateResult(name=name, verdict=verdict, value=upper, bound=gate.margin, message=message)


def _mean_difference(question: Question, judged: Judged, rival: Floats) -> tuple[float, float]:
    metric = question.gate.metric
    # compare_losses weighs rows alike; scaled losses have the weighted mean as their mean.
    share = judged.weight / judged.weight.mean()
    own = losses(metric, judged.truth, judged.scores) * share
    other = losses(metric, judged.truth, rival) * share
    difference = compare_losses(other, own, groups=judged.clusters, level=question.level).difference
    return difference.estimate, difference.upper


def _bootstrap(question: Question, judged: Judged, rival: Floats) -> tuple[float, float] | None:
    """The difference in badness and its upper quantile, over clusters drawn with replacement (Efron 1979)."""
    metric = question.gate.metric
    labels = np.unique(judged.clusters, return_inverse=True)[1]
    count = int(labels.max()) + 1
    draws = np.random.default_rng([question.seed, 3])

    def worse_by(weight: Floats) -> float | None:
        rows = weight > 0
        pair = [
            measure(judged.truth[rows], scores[rows], weight[rows], question.target).get(metric)
            for scores in (judged.scores, rival)
        ]
        if pair[0] is None or pair[1] is None:
            return None
        return badness(metric, pair[0]) - badness(metric, pair[1])

    sampled = [
        worse_by(judged.weight * np.bincount(draws.integers(0, count, count), minlength=count)[labels])
        for _ in range(RESAMPLES)
    ]
    known = [value for value in sampled if value is not None]
    estimate = worse_by(judged.weight)
    if estimate is None or len(known) < RESAMPLES // 2:
        return None
    return estimate, float(np.quantile(known, (1 + question.level) / 2))


def approved(results: Sequence[GateResult]) -> bool:
    """Whether nothing failed; what is not identified is shown and not counted."""
    return all(result.verdict != "Failed" for result in results)
