"""The local proof of concept: the same line on a sample, in one process tree, without Kubernetes or a server."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from drivetrain.api.canonical import digest
from drivetrain.api.runspec import RunSpec
from drivetrain.api.v1alpha1.project import DrivetrainProject
from drivetrain.api.v1alpha1.trainingrun import GateResult, SliceMetric, TrainingRunSpec
from drivetrain.pipelines.attempt import Claim, Fence
from drivetrain.pipelines.driver import Built, Setting, drive, local_trials
from drivetrain.pipelines.sources import SourceReader
from drivetrain.pipelines.stage import StageName, emptied
from drivetrain.pipelines.tracking import Tracking
from drivetrain.store import DirectoryStore

MOST_TRIALS: Final = 4
"""A proof of concept shows that the line runs and what a first model is worth; it does not tune."""


@dataclass(frozen=True, slots=True)
class PocReport:
    """What the sample showed."""

    approved: bool
    rows: int
    data_version: str
    winner: str
    metrics: Mapping[str, float]
    """On the test rows; the dummy baseline's as `dummy.*`."""
    slices: tuple[SliceMetric, ...]
    gates: tuple[GateResult, ...]
    lever_effect: str
    """Observational: the sample cannot tell what the levers cause."""
    model: Path
    """Folder with model.onnx, contract.json and reference.json."""
    tracking_uri: str
    """For `mlflow ui --backend-store-uri`."""
    seconds: float


class Printed:
    """Tells people how far the line is, one line a stage."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell

    def began(self, stage: StageName) -> None:
        self._tell(f"{stage} ...")

    def advanced(self, stage: StageName, share: float) -> None:
        """A sample's stages are too short to count percents."""

    def ended(self, stage: StageName, *, reused: bool, seconds: float) -> None:
        self._tell(f"{stage} {'reused' if reused else 'done'} in {seconds:.1f} s")

    def update(self, **fields: Any) -> None:
        """The report at the end has it all."""

    def trials(self, done: int) -> None:
        self._tell(f"trial {done} finished")


def proof_of_concept(
    project: DrivetrainProject,
    folder: Path,
    sample_rows: int,
    progress: Callable[[str], None],
    *,
    now: datetime,
    env: Mapping[str, str] = os.environ,
) -> PocReport:
    """Runs the line on at most `sample_rows` rows of each source; everything it makes lies below `folder`.

    Raises what the line raises: SourceError, ContractError, InvalidSpecError, ModelError, StoreError.
    """
    started = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    spec = spec_of(project, now)
    store = DirectoryStore(folder / "store")
    tracking_uri = f"sqlite:///{(folder / 'mlflow.db').absolute()}"
    with Tracking(tracking_uri) as tracking:
        built = drive(
            spec,
            Setting(
                store=store,
                reader=SourceReader(spec.data.store, env),
                work=emptied(folder / "work"),
                attempt=1,
                guard=Fence(store, spec.run_uid, Claim(1, 1, "local")),
                audience=Printed(progress),
                tracking=tracking,
                trials=local_trials,
                now=now,
                sample=sample_rows,
            ),
        )
        tracking.close("FINISHED")
    return _report(built, tracking_uri, time.monotonic() - started)


def spec_of(project: DrivetrainProject, now: datetime) -> RunSpec:
    """The run spec of a proof of concept: the project's own training, with few trials."""
    declared = project.spec
    template = declared.training.model_copy(
        update={
            "tuning": declared.training.tuning.model_copy(
                update={"trials": min(declared.training.tuning.trials, MOST_TRIALS)}
            )
        }
    )
    name = project.metadata.name
    return RunSpec(
        namespace=project.metadata.namespace or "default",
        project=name,
        project_uid=project.metadata.uid or f"poc-{name}",
        run=f"{name}-poc",
        run_uid=f"poc-{digest({'name': name, 'at': now.isoformat()})[:12]}",
        objective=declared.objective,
        levers=declared.levers,
        exploration=declared.exploration,
        decisions=declared.decisions,
        data=declared.data,
        spec=TrainingRunSpec(project=name, **{key: getattr(template, key) for key in type(template).model_fields}),
    )


def _report(built: Built, tracking_uri: str, seconds: float) -> PocReport:
    model = built.model
    return PocReport(
        approved=model.approved,
        rows=built.rows,
        data_version=built.data_version,
        winner=model.winner,
        metrics=model.metrics,
        slices=model.slices,
        gates=model.gates,
        lever_effect=model.contract.lever_effect,
        model=model.folder,
        tracking_uri=tracking_uri,
        seconds=seconds,
    )
