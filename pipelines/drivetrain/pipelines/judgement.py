"""The evaluation stage: everything that is said about a trained graph before it may serve."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from drivetrain.api.canonical import Hashable, canonical_json
from drivetrain.api.errors import ContractError, DrivetrainError, ModelError
from drivetrain.api.meta import ApiModel
from drivetrain.api.model import CONTRACT_FILE, GRAPH_FILE, ModelContract
from drivetrain.api.policy import Policy
from drivetrain.api.runspec import RunSpec
from drivetrain.api.v1alpha1.trainingrun import LOOP_CAUSES, GateResult, SliceMetric
from drivetrain.evidence.policy_value import PolicyValue
from drivetrain.pipelines.equality import Equality
from drivetrain.pipelines.estimators import fit_dummy
from drivetrain.pipelines.evaluation import Judged, Latency, by_slice, latency, responses, score, truth_of, worst_cases
from drivetrain.pipelines.features import FeaturePlan, directed
from drivetrain.pipelines.gates import Contest, effect_gates, equality_gate, judge, latency_gate, missing_rows
from drivetrain.pipelines.graph import Floats, Session
from drivetrain.pipelines.metrics import measure, rounded
from drivetrain.pipelines.models import Sample
from drivetrain.pipelines.multipliers import solve
from drivetrain.pipelines.off_policy import Log, policy_gate
from drivetrain.pipelines.publication import digest_of
from drivetrain.pipelines.rows import DECIDED_AT, GROUP, TrainingRows
from drivetrain.pipelines.stage import StageName
from drivetrain.pipelines.support import supported

EXPLORED_ROWS = 5000
"""How many of the latest matured explored decisions a loop's retraining is judged on."""
LEAST_EXPLORED = 30


class Verdict(ApiModel):
    """What evaluation found."""

    metrics: Mapping[str, float]
    """On the test rows; the dummy's as `dummy.*`, the champion's as `champion.*`."""
    slices: tuple[SliceMetric, ...]
    """The worst first."""
    gates: tuple[GateResult, ...]
    latency: Latency
    multipliers: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict and the worst cases, with their columns."""

    verdict: Verdict
    worst: pl.DataFrame


@dataclass(frozen=True, slots=True)
class Champion:
    """A published model to compare with."""

    graph: Session
    contract: ModelContract


def open_champion(folder: Path) -> Champion:
    """Reads a published model's folder. Raises ModelError."""
    contract = ModelContract.model_validate_json((folder / CONTRACT_FILE).read_bytes())
    graph = (folder / GRAPH_FILE).read_bytes()
    if digest_of(graph) != contract.graph:
        raise ModelError("ModelAltered", "The champion's graph is not the one that its contract names.")
    return Champion(Session(graph), contract)


@dataclass(frozen=True, slots=True)
class Judging:
    """Judges the `value` output on the test rows that count."""

    rows: TrainingRows
    spec: RunSpec
    plan: FeaturePlan
    graph: bytes
    equality: Equality
    champion: Champion | None
    facts: Hashable
    name = StageName.EVALUATION
    code = 1

    def inputs(self) -> Hashable:
        run = self.spec.spec
        return {
            "facts": self.facts,
            "graph": digest_of(self.graph),
            "champion": None if self.champion is None else self.champion.contract.digest,
            "objective": self.spec.objective.model_dump(mode="json"),
            "slices": list(self.spec.data.slices),
            "gates": run.evaluation.model_dump(mode="json"),
            "cause": run.trigger.cause,
            "environment": self.spec.decisions.environment.model_dump(mode="json"),
        }

    def run(self, advance: Callable[[float], None]) -> Judgement:
        spec, target, graph = self.spec, self.spec.data.target, Session(self.graph)
        judged = self._judged(graph, self.rows.test & (self.rows.weight > 0))
        contest = self._contest(judged, "")
        advance(0.3)
        seed = spec.spec.tuning.seed
        gates = list(judge(spec.spec.evaluation.gates, contest, target, seed))
        if spec.spec.trigger.cause in LOOP_CAUSES:
            gates += self._on_explored(judged, seed)
        advance(0.6)
        speed = latency(graph, judged.frame, self.plan.inputs, spec.levers)
        shares = responses(graph, judged.frame, self.plan.inputs, directed(spec.levers, target))
        gates += effect_gates(spec.levers, shares, self.plan.loose)
        gates += [latency_gate(speed, spec.decisions.environment.latency_ms), equality_gate(self.equality)]
        policy = Policy(objective=spec.objective, levers=spec.levers, columns=spec.data.columns, target=target)
        validation = self.rows.frame.filter(pl.Series(self.rows.validation & (self.rows.weight > 0)))
        support = supported(self.rows.frame.filter(pl.Series(self.rows.fitted)), spec.levers)
        multipliers = solve(graph, validation, self.plan.inputs, policy, support)
        advance(0.8)
        gates.append(self._policy_value(graph, judged, policy, support, multipliers))
        verdict = Verdict(
            metrics=self._metrics(contest),
            slices=by_slice(judged, target, spec.data.slices, spec.objective.model_metric.name),
            gates=tuple(gates),
            latency=speed,
            multipliers=multipliers,
        )
        return Judgement(verdict, worst_cases(judged, target))

    def save(self, output: Judgement, folder: Path) -> None:
        (folder / "verdict.json").write_text(canonical_json(output.verdict), encoding="utf-8")
        output.worst.write_parquet(folder / "worst.parquet")

    def load(self, folder: Path) -> Judgement:
        verdict = Verdict.model_validate_json((folder / "verdict.json").read_bytes())
        return Judgement(verdict, pl.read_parquet(folder / "worst.parquet"))

    def _judged(self, graph: Session, rows: NDArray[np.bool_]) -> Judged:
        frame = self.rows.frame.filter(pl.Series(rows))
        if frame.is_empty():
            raise ContractError("TooFewRows", "No test row counts.", remedy="Add rows, or widen the window.")
        clusters = frame[GROUP].to_numpy()
        target = self.spec.data.target
        scores = score(graph, frame, self.plan.inputs)
        return Judged(frame, truth_of(frame, target), scores, self.rows.weight[rows], clusters)

    def _contest(self, judged: Judged, suffix: str) -> Contest:
        truth = truth_of(self.rows.frame.filter(pl.Series(self.rows.fitted)), self.spec.data.target)
        empty = np.zeros((len(truth), 0), dtype=np.float32)
        dummy = fit_dummy(Sample(empty, empty, truth, self.rows.weight[self.rows.fitted], ()), self.spec.data.target)
        nothing = np.zeros((len(judged), 0), dtype=np.float32)
        champion, why = self._champion_scores(judged.frame)
        return Contest(judged, dummy.scores(nothing, nothing), champion, why, suffix)

    def _champion_scores(self, frame: pl.DataFrame) -> tuple[Floats | None, str]:
        """The champion's scores of the same rows, or why there are none.

        Neither model saw these rows: a row's part is a stable hash of itself or its group, or, with a Time split, they
        are later than all that trained this run, and must be later than what trained the champion.
        """
        if self.champion is None:
            return None, "There is no champion yet."
        contract = self.champion.contract
        if contract.target != self.spec.data.target:
            return None, "The champion predicts another target."
        missing = [column.name for column in contract.inputs if column.name not in frame.columns]
        if missing:
            return None, f"The champion reads {', '.join(missing)}, which this data version lacks."
        until = contract.trained_until
        if self.spec.data.split.strategy == "Time" and until is not None:
            first = frame[DECIDED_AT].min()
            cut = pl.Series([until]).str.to_datetime(time_unit="us", time_zone="UTC")[0]
            if first is not None and first <= cut:
                return None, f"Some test rows are not later than {until}, up to which the champion was trained."
        try:
            return score(self.champion.graph, frame, contract.inputs), ""
        except DrivetrainError as error:
            return None, f"The champion cannot score these rows: {error.message}"[:500]

    def _on_explored(self, judged: Judged, seed: int) -> tuple[GateResult, ...]:
        """The declared gates once more, on the latest matured explored rows of the decision log that are held out."""
        suffix, gates = " on explored rows", self.spec.spec.evaluation.gates
        test = self.rows.test & (self.rows.weight > 0)
        chosen = (self.rows.logged & self.rows.explored)[test]
        times = judged.frame[DECIDED_AT].cast(pl.Int64).fill_null(0).to_numpy()
        if np.count_nonzero(chosen) > EXPLORED_ROWS:
            chosen &= times >= np.sort(times[chosen])[-EXPLORED_ROWS]
        if np.count_nonzero(chosen) < LEAST_EXPLORED:
            return missing_rows(gates, suffix, int(np.count_nonzero(chosen)), LEAST_EXPLORED)
        return judge(gates, self._contest(judged.take(chosen), suffix), self.spec.data.target, seed)

    def _policy_value(
        self,
        graph: Session,
        judged: Judged,
        policy: Policy,
        support: Mapping[str, Sequence[str]],
        multipliers: Mapping[str, float],
    ) -> GateResult:
        """Whether the log proves the new policy worse than the champion's, where the log can tell."""
        log, champion = Log.of(judged, self.plan, policy), None
        found = log.value(graph, self.plan.inputs, support, multipliers)
        if self.champion is not None and isinstance(found, PolicyValue):
            contract = self.champion.contract
            if all(column.name in judged.frame.columns for column in contract.inputs):
                champion = log.value(self.champion.graph, contract.inputs, contract.support, contract.multipliers)
        return policy_gate(found, champion)

    def _metrics(self, contest: Contest) -> dict[str, float]:
        target, judged = self.spec.data.target, contest.candidate
        found = rounded(measure(judged.truth, judged.scores, judged.weight, target))
        others = {"dummy": contest.dummy, "champion": contest.champion}
        for name, scores in others.items():
            if scores is not None:
                measured = rounded(measure(judged.truth, scores, judged.weight, target))
                found |= {f"{name}.{metric}": value for metric, value in measured.items()}
        return found
