"""The whole line for one run: data version, rows, model, registration, and what is fed back."""

import hashlib
import io
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from drivetrain.api.canonical import Hashable, canonical_json
from drivetrain.api.errors import ModelError
from drivetrain.api.layout import model as model_key
from drivetrain.api.layout import version as version_key
from drivetrain.api.model import CONTRACT_FILE, GRAPH_FILE
from drivetrain.api.report import RunResult
from drivetrain.api.runspec import RunSpec, objective_hash
from drivetrain.pipelines import collection, versions
from drivetrain.pipelines.frame import conform
from drivetrain.pipelines.sources import SourceReader
from drivetrain.pipelines.split import split
from drivetrain.pipelines.stage import Guard, Observer, StageName, StageRunner, emptied
from drivetrain.pipelines.tracking import Opening, Registration, Registry
from drivetrain.pipelines.trials import StoredTrialLog
from drivetrain.store import ObjectMissingError, ObjectStore

if TYPE_CHECKING:
    from drivetrain.pipelines.modelling import BuiltModel
    from drivetrain.pipelines.rows import TrainingRows
    from drivetrain.pipelines.work import TrialRunner

WORST_SLICES: Final = 10
_METRIC_LIMIT: Final = 64


class Audience(Observer, Protocol):
    """Who hears what the run has found so far."""

    def update(self, **fields: Any) -> None:
        """Fields of TrainingReport that are known now."""
        ...

    def trials(self, done: int) -> None:
        """How many trials are finished."""
        ...


@dataclass(frozen=True, slots=True)
class Setting:
    """Where a run takes place."""

    store: ObjectStore
    reader: SourceReader
    work: Path
    """Scratch folder, which exists."""
    attempt: int
    guard: Guard
    audience: Audience
    tracking: Registry
    trials: Callable[[], "AbstractContextManager[TrialRunner]"]
    """The workers that fit; they start when they are needed."""
    now: datetime
    sample: int | None = None
    """Rows kept of each source; all when absent."""


@dataclass(frozen=True, slots=True)
class Built:
    """What a run leaves behind."""

    result: RunResult
    model: "BuiltModel"
    rows: int
    data_version: str


def opening_of(spec: RunSpec) -> Opening:
    """What MLflow is told when the run begins."""
    run = spec.spec
    params = {
        "seed": str(run.tuning.seed),
        "tuning.algorithm": run.tuning.algorithm,
        "tuning.trials": str(run.tuning.trials),
        "target": f"{spec.data.target.name} ({spec.data.target.type})",
        "split": spec.data.split.strategy,
        "candidates": ", ".join(f"{candidate.name}: {candidate.estimator}" for candidate in run.candidates),
        "ensembles": ", ".join(run.ensemble.methods),
    }
    tags = {
        "drivetrain.project-uid": spec.project_uid,
        "drivetrain.namespace": spec.namespace,
        "drivetrain.cause": run.trigger.cause,
        "drivetrain.evidence": canonical_json(dict(run.trigger.evidence)),
        "drivetrain.objective": objective_hash(spec.objective),
        "drivetrain.image": run.cluster.image or "",
    }
    return Opening(f"{spec.namespace}.{spec.project}", spec.run, spec.run_uid, tags, params)


def drive(spec: RunSpec, setting: Setting) -> Built:
    """Takes the run through all stages; what is unchanged since an earlier run or attempt is reused.

    Raises SourceError, ContractError, InvalidSpecError, ModelError, StoreError, FencedError, and ReportedError:
    TrackingFailed. Nothing is registered unless everything before it succeeded.
    """
    from drivetrain.pipelines.modelling import build

    audience = setting.audience
    stages = StageRunner(setting.store, setting.work, setting.guard, audience)
    setting.tracking.open(opening_of(spec), lambda run: audience.update(mlflow_run=run))
    with setting.trials() as runner:
        # New rows mean fits: workers start while they are read. A run that reuses everything starts none.
        version, rows = _data(spec, setting, replace(stages, fresh=runner.start))
        champion = _champion(spec, setting)
        log = StoredTrialLog(setting.store, spec.run_uid, setting.attempt, setting.guard, audience.trials)
        folder = emptied(setting.work / "model")
        built = build(rows, spec, runner, log, stages, champion=champion, folder=folder)
    metrics = dict(list(built.metrics.items())[:_METRIC_LIMIT])
    audience.update(metrics=metrics, slices=built.slices[:WORST_SLICES], gates=built.gates)
    setting.tracking.opened()
    published = stages.run(Deployment(spec, setting, built, version))
    stages.run(Feedback(spec, setting, built))
    result = RunResult(
        state="Approved" if built.approved else "Refused",
        version=published.version,
        digest=built.contract.digest,
        uri=published.uri,
        project_uid=spec.project_uid,
        message=_verdict(built),
        lever_effect=built.contract.lever_effect,
    )
    return Built(result, built, version.rows, version.md5)


def prepare(spec: RunSpec, setting: Setting) -> RunResult:
    """The part of the line that needs no GPU, so that none waits for a download, a broken source or a missing store.

    Raises what `drive` raises.
    """
    stages = StageRunner(setting.store, setting.work, setting.guard, setting.audience)
    setting.tracking.open(opening_of(spec), lambda run: setting.audience.update(mlflow_run=run))
    version, _ = _data(spec, setting, stages)
    _champion(spec, setting)
    setting.tracking.opened()
    return RunResult(state="Prepared", project_uid=spec.project_uid, message=f"Data version {version.md5} is ready.")


def _data(spec: RunSpec, setting: Setting, stages: StageRunner) -> "tuple[versions.DataVersion, TrainingRows]":
    """The data version and its rows, checked and split."""
    version = collection.resolve(spec, setting.reader, stages, now=setting.now, sample=setting.sample)
    setting.audience.update(data_version=version.md5, data_rows=version.rows)
    frame = conform(versions.read(setting.store, version.md5), spec.data)
    return version, split(frame, version.md5, spec.data, spec.objective.unit, spec.spec.window)


@dataclass(frozen=True, slots=True)
class Published:
    """A registered version."""

    version: str
    uri: str


@dataclass(frozen=True, slots=True)
class Deployment:
    """Stage 8, the run's part: the model in the store under its digest, and a registered version of it."""

    spec: RunSpec
    setting: Setting
    built: "BuiltModel"
    data: versions.DataVersion

    name = StageName.DEPLOYMENT
    code = 1

    def inputs(self) -> Hashable:
        return {
            "run": self.spec.run_uid,
            "project": self.spec.project_uid,
            "digest": self.built.contract.digest,
            "approved": self.built.approved,
        }

    def run(self, advance: Callable[[float], None]) -> Published:
        from drivetrain.pipelines.publication import publish

        self.setting.guard.check()
        uri = publish(self.setting.store, self.built.folder, self.built.contract)
        advance(0.5)
        self.setting.guard.check()
        return Published(self.setting.tracking.register(self._registration(uri)), uri)

    def save(self, output: Published, folder: Path) -> None:
        (folder / "published.json").write_text(canonical_json({"version": output.version, "uri": output.uri}))

    def load(self, folder: Path) -> Published:
        return Published(**json.loads((folder / "published.json").read_text()))

    def _registration(self, uri: str) -> Registration:
        from drivetrain.pipelines.publication import signature

        built, store = self.built, self.setting.store
        tags = {
            "drivetrain.run": self.spec.run,
            "drivetrain.project-uid": self.spec.project_uid,
            "drivetrain.attempt": str(self.setting.attempt),
            "drivetrain.data-version": self.data.md5,
            "drivetrain.model": uri,
            "drivetrain.contract": f"{uri}/{CONTRACT_FILE}",
            "drivetrain.worst-cases": store.uri(worst_cases_key(self.spec.run_uid)),
            "drivetrain.lever-effect": built.contract.lever_effect,
            "drivetrain.signature": canonical_json(signature(built.contract)),
            "drivetrain.gates": canonical_json([gate.model_dump(mode="json") for gate in built.gates]),
            "drivetrain.slices": canonical_json([one.model_dump(mode="json") for one in built.slices[:WORST_SLICES]]),
            "drivetrain.refused": canonical_json([one.model_dump(mode="json") for one in built.refusals]),
        }
        params = {"winner": built.winner, "rows": str(self.data.rows)}
        params |= {f"winner.{name}": str(value) for name, value in built.parameters.items()}
        return Registration(
            source=uri,
            digest=built.contract.digest,
            approved=built.approved,
            data_version=self.data.md5,
            data_uri=store.uri(version_key(self.data.md5)),
            metrics={
                **built.metrics,
                **{f"slice.{one.slice}.{one.metric}": one.value for one in built.slices[:WORST_SLICES]},
                "latency.p99_ms": built.latency.p99_ms,
            },
            params=params,
            tags=tags,
            trials=tuple(trial.metrics for trial in built.trials),
        )


@dataclass(frozen=True, slots=True)
class Feedback:
    """Stage 9, the run's part: the worst cases, where people label and write tests from them."""

    spec: RunSpec
    setting: Setting
    built: "BuiltModel"

    name = StageName.FEEDBACK
    code = 1

    def inputs(self) -> Hashable:
        return {"run": self.spec.run_uid, "digest": self.built.contract.digest}

    def run(self, advance: Callable[[float], None]) -> bytes:
        lines = io.BytesIO()
        self.built.worst.write_ndjson(lines)
        self.setting.guard.check()
        self.setting.store.put(worst_cases_key(self.spec.run_uid), lines.getvalue())
        return lines.getvalue()

    def save(self, output: bytes, folder: Path) -> None:
        (folder / "worst-cases.jsonl").write_bytes(output)

    def load(self, folder: Path) -> bytes:
        return (folder / "worst-cases.jsonl").read_bytes()


def worst_cases_key(run_uid: str) -> str:
    """Where a run's worst test rows lie, JSON lines with truth, prediction and loss."""
    return f"runs/{run_uid}/worst-cases.jsonl"


@contextmanager
def local_trials() -> "Iterator[TrialRunner]":
    """Fits in this process, one after another."""
    from drivetrain.pipelines.work import LocalTrials

    yield LocalTrials()


def _champion(spec: RunSpec, setting: Setting) -> Path | None:
    """The champion's files, which its digest names; None when there is none yet."""
    if spec.champion is None:
        return None
    folder = emptied(setting.work / "champion")
    try:
        for name in (GRAPH_FILE, CONTRACT_FILE):
            setting.store.download(f"{model_key(spec.champion.digest)}/{name}", folder / name)
    except ObjectMissingError as error:
        raise ModelError(
            "ModelNotFound",
            f"The champion, version {spec.champion.version}, is gone from the store: {error.uri}.",
            remedy="Restore it from a backup, or pin another version.",
        ) from error
    if hashlib.sha256((folder / CONTRACT_FILE).read_bytes()).hexdigest() != spec.champion.digest:
        raise ModelError("ModelAltered", f"The contract of the champion, version {spec.champion.version}, was altered.")
    return folder


def _verdict(built: "BuiltModel") -> str:
    failed = [gate for gate in built.gates if gate.verdict == "Failed"]
    if not failed:
        return f"{built.winner} passed {sum(gate.verdict == 'Passed' for gate in built.gates)} gates."
    return " ".join(f"{gate.name}: {gate.message}" for gate in failed)[:1024]
