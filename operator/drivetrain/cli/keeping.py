"""Commands about what stays: purge, completion."""

import os
import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from drivetrain.api.errors import DrivetrainError
from drivetrain.cli.application import (
    ContextOption,
    KubeconfigOption,
    NamespaceOption,
    app,
    connected,
    errors,
    output,
    progress,
    stores,
)

COMPLETE_VARIABLE = "_DRIVETRAIN_COMPLETE"
_NO_FILES = 4
"""ShellCompDirectiveNoFileComp of the protocol between kubectl and its plugins' completion."""


class Shell(StrEnum):
    """Shells that can be completed in."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


@app.command("purge")
def purge(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Manifest of the deleted DrivetrainProject.")],
    confirm: Annotated[
        str | None, typer.Option("--confirm", metavar="NAME", help="The project's name, instead of being asked for it.")
    ] = None,
    namespace: NamespaceOption = None,
    context: ContextOption = None,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Remove data, models and logs of a deleted project from its store, after confirmation by name.

    Objects that Drivetrain did not write stay, and so do MLflow's records.
    """
    from drivetrain.cli import purging
    from drivetrain.cli.examination import projects_of
    from drivetrain.cli.manifests import read

    found = projects_of([each.content for each in read(file)])
    if len(found) != 1:
        told = f"{file} holds {len(found)} projects, and one is purged at a time."
        raise DrivetrainError(told, remedy="Name a file with the one.")
    project, connection = found[0], connected(kubeconfig, context, namespace)
    name = project.metadata.name
    for told in purging.check_deleted(connection.session, project):
        errors.print(f"not checked: {told}")
    place = project.metadata.namespace or connection.session.namespace
    store = stores(connection)(project.spec.data.store, place)
    there = purging.remains(store)
    for line in there.lines():
        output.print(line)
    if not there.keys:
        return
    typed = confirm if confirm is not None else typer.prompt(f"Type {name} to remove them for good", default="")
    if typed != name:
        raise DrivetrainError(f"{typed!r} is not {name}: nothing was removed.")
    for gone in purging.purge(store, there):
        progress(name, f"{gone:,} of {len(there.keys):,} objects removed")


@app.command("completion")
def completion(shell: Annotated[Shell, typer.Argument(metavar="SHELL", help="bash, zsh or fish.")]) -> None:
    """Print the script that completes `drivetrain` in a shell: source it, or save it where the shell looks.

    `kubectl drivetrain` is completed by kubectl itself, which finds kubectl_complete-drivetrain on PATH.
    """
    os.environ[COMPLETE_VARIABLE] = f"source_{shell.value}"
    app(prog_name="drivetrain", complete_var=COMPLETE_VARIABLE)


def kubectl() -> None:
    """What kubectl calls to complete `kubectl drivetrain ...`: names with their help, and a directive at the end."""
    words = sys.argv[1:]
    typed = shlex.join(["drivetrain", *words[:-1]]) + f" {words[-1] if words else ''}"
    os.environ |= {
        COMPLETE_VARIABLE: "complete_fish",
        "_TYPER_COMPLETE_ARGS": typed,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    sys.argv = ["drivetrain"]
    try:
        app(prog_name="drivetrain", complete_var=COMPLETE_VARIABLE)
    finally:
        print(f":{_NO_FILES}")
