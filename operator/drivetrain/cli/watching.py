"""Commands that show how the loop stands and why: status, why, runs, logs."""

import time
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group, RenderableType

from drivetrain.api.errors import UnavailableError
from drivetrain.cli.application import (
    ContextOption,
    EverywhereOption,
    FollowOption,
    KubeconfigOption,
    NamespaceOption,
    app,
    connected,
    errors,
    everything,
    now,
    output,
    projects,
    stores,
)
from drivetrain.cli.printing import Format

if TYPE_CHECKING:
    from drivetrain.cli.session import Session

WATCH_SECONDS = 2.0

ProjectArgument = Annotated[
    str | None, typer.Argument(metavar="PROJECT", help="One project; all when absent.", autocompletion=projects)
]
FormatOption = Annotated[Format | None, typer.Option("--output", "-o", help="Print the objects themselves.")]


@app.command("status")
def status(
    project: ProjectArgument = None,
    *,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show every change until interrupted.")] = False,
    everywhere: EverywhereOption = False,
    form: FormatOption = None,
    namespace: NamespaceOption = None,
    context: ContextOption = None,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Show the loop of a project as a tree: what it decides next, its runs, what serves and what is rolled out."""
    session = connected(kubeconfig, context, namespace).session
    if form is not None:
        _print_objects(session, project, everywhere=everywhere, form=form)
    elif watch:
        _watch(session, project, everywhere=everywhere)
    else:
        output.print(_trees(session, project, everywhere=everywhere))


@app.command("why")
def why(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="Project, run or Deployment; dtr/NAME picks.", autocompletion=everything),
    ],
    namespace: NamespaceOption = None,
    context: ContextOption = None,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Say what an object waits for or why it failed, from status, ledger, Kueue, Pods, events and the dossier."""
    from drivetrain.cli.answer import answer
    from drivetrain.cli.inquiry import investigate, subjects

    connection = connected(kubeconfig, context, namespace)
    for index, subject in enumerate(subjects(connection.session, name)):
        if index:
            output.print()
        output.print(answer(investigate(connection.session, subject, stores(connection)), now()).text())


@app.command("runs")
def runs(
    project: ProjectArgument = None,
    *,
    everywhere: EverywhereOption = False,
    form: FormatOption = None,
    namespace: NamespaceOption = None,
    context: ContextOption = None,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """List training runs, newest first, with what became of each."""
    from drivetrain.api.kinds import TRAINING_RUN
    from drivetrain.cli.loops import read
    from drivetrain.cli.printing import objects
    from drivetrain.cli.runs import runs_table

    found = read(connected(kubeconfig, context, namespace).session, project, everywhere=everywhere)
    if form is not None:
        own = [each for each in found.documents if each.get("kind") == TRAINING_RUN.kind]
        output.print(objects(own, form), markup=False)
    elif not any(loop.runs for loop in found.loops):
        errors.print("There are no training runs.")
    else:
        output.print(runs_table(found.loops, now(), namespaced=everywhere))


@app.command("logs")
def logs(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="Run or Deployment; of a project, its newest run.", autocompletion=everything
        ),
    ],
    *,
    follow: FollowOption = False,
    lines: Annotated[int, typer.Option("--lines", help="How many of the last lines.", min=1)] = 200,
    namespace: NamespaceOption = None,
    context: ContextOption = None,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Print the log of a run's driver or of an endpoint's Pods; of a run whose Pods are gone, what was kept on S3."""
    from drivetrain.cli.transcripts import Transcripts

    connection = connected(kubeconfig, context, namespace)
    transcripts = Transcripts(connection.session, stores(connection), connection.local)
    for line in transcripts.of(name, lines=lines, follow=follow):
        output.print(line, markup=False)


def _print_objects(session: "Session", project: str | None, *, everywhere: bool, form: Format) -> None:
    from drivetrain.cli.loops import read
    from drivetrain.cli.printing import objects

    output.print(objects(read(session, project, everywhere=everywhere).documents, form), markup=False)


def _trees(session: "Session", project: str | None, *, everywhere: bool) -> RenderableType:
    from drivetrain.cli.loops import read
    from drivetrain.cli.tree import loop_tree

    found = read(session, project, everywhere=everywhere)
    if not found.loops:
        where = "any namespace" if everywhere else f"namespace {session.namespace}"
        return f"There is no project in {where}. Apply one: kubectl apply -f project.yaml"
    return Group(*(loop_tree(loop, now(), namespaced=everywhere) for loop in found.loops))


def _watch(session: "Session", project: str | None, *, everywhere: bool) -> None:
    """Redraws on a terminal; elsewhere prints the tree each time that it has changed."""
    if not output.is_terminal:
        shown = ""
        while True:
            with output.capture() as captured:
                output.print(_trees(session, project, everywhere=everywhere))
            if captured.get() != shown:
                shown = captured.get()
                output.print(shown, markup=False)
            time.sleep(WATCH_SECONDS)
    from rich.live import Live

    with Live(console=output, auto_refresh=False, screen=False) as live:
        while True:
            try:
                live.update(_trees(session, project, everywhere=everywhere), refresh=True)
            except UnavailableError as error:  # whoever watches wants to go on watching when it is back
                live.update(str(error), refresh=True)
            time.sleep(WATCH_SECONDS)
