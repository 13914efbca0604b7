"""Commands that judge before anything happens: validate, plan, doctor, poc."""

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from drivetrain.api.errors import DrivetrainError
from drivetrain.cli.application import (
    ContextOption,
    FilesArgument,
    KubeconfigOption,
    NamespaceOption,
    RenderingOption,
    app,
    connected,
    errors,
    now,
    output,
    progress,
    stores,
    verbatim,
)

if TYPE_CHECKING:
    from drivetrain.cli.manifests import Manifest


@app.command("validate")
def validate(
    files: FilesArgument,
    live: Annotated[
        bool, typer.Option("--live", help="Also read the projects' sources, whole, with keys that you may read.")
    ] = False,
    namespace: NamespaceOption = None,
    context: ContextOption = None,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Say offline what admission and the operator would say of manifests, with file, line and remedy."""
    from drivetrain.cli.validation import validate as check

    verdict = check(files)
    for told in (*verdict.unreadable, *verdict.findings):
        output.print(str(told))
    if verdict.problems:
        errors.print(f"problems: {verdict.problems}; resources checked: {verdict.checked}")
        raise typer.Exit(1)
    output.print(f"{verdict.checked} resources are valid; {verdict.other} of other groups were not judged")
    if live and not _validate_live(verdict.manifests, kubeconfig, context, namespace):
        raise typer.Exit(1)


def _validate_live(
    manifests: "Sequence[Manifest]", kubeconfig: Path | None, context: str | None, namespace: str | None
) -> bool:
    from drivetrain.api.v1alpha1.dataset import SecretReference
    from drivetrain.cli.examination import projects_of
    from drivetrain.cli.keys import keys_of
    from drivetrain.cli.live import check_sources

    connection = connected(kubeconfig, context, namespace)
    session, well = connection.session, True
    for project in projects_of([each.content for each in manifests]):
        place = project.metadata.namespace or session.namespace

        def keys(secret: str, place: str = place) -> dict[str, str]:
            return keys_of(session, SecretReference(secret_name=secret), place, os.environ)

        endpoint = connection.local.s3 if connection.local else None
        for told, fine in check_sources(project, keys, endpoint=endpoint):
            output.print(f"{project.metadata.name}: {told}")
            well = well and fine
    return well


@app.command("plan")
def plan(
    files: FilesArgument,
    form: RenderingOption = None,
    namespace: NamespaceOption = None,
    context: ContextOption = None,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Say what applying manifests would create and change, whether quota and nodes have room, and what it costs.

    Exit code 1 when it cannot work: invalid, refused by admission, or more than a queue can ever give.
    """
    from drivetrain.cli import installation
    from drivetrain.cli.forecast import forecast, planned_documents
    from drivetrain.cli.forecast_view import as_document, forecast_text
    from drivetrain.cli.printing import document

    connection = connected(kubeconfig, context, namespace)
    documents, other = planned_documents(files, connection.session.namespace)
    local = connection.local
    settings, unknown = installation.settings(connection.session, mlflow=local.mlflow if local else None)
    found = forecast(
        connection.session,
        documents,
        settings,
        now(),
        other=other,
        unread=(unknown,) if unknown and local is None else (),
        has_nodes=local is None,
    )
    if form is not None:
        verbatim(document(as_document(found), form))
    else:
        output.print(forecast_text(found), end="")
    if not found.possible:
        raise typer.Exit(1)


@app.command("doctor")
def doctor(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="Manifest whose store and MLflow are tried; the namespace's when absent."),
    ] = None,
    form: RenderingOption = None,
    namespace: NamespaceOption = None,
    context: ContextOption = None,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Check what must be there: definitions, operator, KubeRay, Kueue, your rights, S3, MLflow and the clock.

    It writes and removes one small object in each store. Exit code 1 when a check fails.
    """
    from drivetrain.cli.diagnosis import Check, report
    from drivetrain.cli.examination import Examination, failed, projects_of
    from drivetrain.cli.manifests import read
    from drivetrain.cli.printing import document

    connection = connected(kubeconfig, context, namespace)
    local = connection.local
    named = projects_of([each.content for each in read(file)]) if file is not None else ()
    if file is not None and not named:
        raise DrivetrainError(f"{file} holds no DrivetrainProject.", remedy="Name the project's manifest.")
    examination = Examination(
        connection.session,
        stores(connection),
        now(),
        projects=named,
        mlflow=local.mlflow if local else None,
        local=local is not None,
    )
    checks: list[Check] = []
    for check in examination.checks():  # shown as they come: what was seen is not lost to what fails later
        checks.append(check)
        if form is None:
            output.print(report(check))
    if form is not None:
        verbatim(document({"checks": [asdict(check) for check in checks]}, form))
    if failed(checks):
        raise typer.Exit(1)


@app.command("poc")
def poc(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Manifest of a DrivetrainProject.")],
    rows: Annotated[int, typer.Option("--rows", help="Rows of data to sample.", min=100)] = 5_000,
    folder: Annotated[Path, typer.Option("--folder", help="Where results go.")] = Path(".drivetrain/poc"),
) -> None:
    """Run the assembly line on a sample of the data, in one process tree, without a cluster or server."""
    from drivetrain.cli.proof import prove

    for line in prove(file, folder=folder, rows=rows, progress=progress):
        output.print(line)
