"""`drivetrain poc`: the assembly line on a sample of the data, in this process tree."""

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from drivetrain.api.errors import DrivetrainError, InvalidSpecError
from drivetrain.api.names import NO_TELEMETRY
from drivetrain.api.v1alpha1.project import DrivetrainProject
from drivetrain.api.validation import validate_project
from drivetrain.cli.manifests import Manifest, read
from drivetrain.cli.validation import located


def prove(file: Path, *, folder: Path, rows: int, progress: Callable[[str, str], None]) -> Iterator[str]:
    """Runs the line on the project in `file`; yields the lines of its report.

    Raises DrivetrainError when the file holds no valid project, and what the line raises.
    """
    os.environ.update(NO_TELEMETRY)
    from drivetrain.pipelines.poc import proof_of_concept

    manifest = next((found for found in read(file) if found.kind == "DrivetrainProject"), None)
    if manifest is None:
        raise DrivetrainError(f"{file} holds no DrivetrainProject.", remedy="Name the project's manifest.")
    project = _valid(manifest)
    report = proof_of_concept(
        project,
        folder,
        rows,
        lambda line: progress(project.metadata.name, line),
        now=datetime.now(UTC),  # noqa: TID251 - the command line is the edge that reads the clock
        env=os.environ,
    )
    yield f"data version {report.data_version}, {report.rows:,} rows"
    yield f"best model {report.winner}, lever effects {report.lever_effect}"
    for name, value in sorted(report.metrics.items()):
        yield f"  {name:24} {value:.4f}"
    for slice_ in report.slices:
        yield f"  {slice_.slice:24} {slice_.value:.4f} {slice_.metric} on {slice_.rows:,} rows"
    for gate in report.gates:
        yield f"gate {gate.verdict:13} {gate.message or gate.name}"
    yield f"model {report.model}"
    yield f"runs: mlflow ui --backend-store-uri {report.tracking_uri}"
    yield f"{'approved' if report.approved else 'refused by a gate'} in {report.seconds:.0f} s"


def _valid(manifest: Manifest) -> DrivetrainProject:
    """The project, or DrivetrainError with what `validate` says of it, a line each."""
    try:
        project = DrivetrainProject.parse(manifest.content)
        problems = validate_project(project)
    except InvalidSpecError as error:
        problems = error.problems
    if problems:
        raise DrivetrainError("\n".join(["the project is not valid.", *map(str, located(manifest, problems))]))
    return project
