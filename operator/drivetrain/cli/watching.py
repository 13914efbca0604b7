"""Commands that show how the loop stands and why: status, why, runs, logs."""

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from drivetrain.api.errors import UnavailableError
from drivetrain.cli.application import (
    ContextOption,
    EverywhereOption,
    FollowOption,
    KubeconfigOption,
    NamespaceOption,
    RenderingOption,
    app,
    connected,
    errors,
    everything,
    now,
    output,
    projects,
    stores,
    verbatim,
)
from drivetrain.cli.fitting import Fitted
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
        output.print(Fitted(_trees(session, project, everywhere=everywhere)))


@app.command("why")
def why(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="Project, run or Deployment; dtr/NAME picks.", autocompletion=everything),
    ],
    form: RenderingOption = None,
    namespace: NamespaceOption = None,
    context: ContextOption = None,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Say what an object waits for or why it failed, from status, ledger, Kueue, Pods, events and the dossier."""
    from drivetrain.cli.answer import answer
    from drivetrain.cli.inquiry import investigate, subjects
    from drivetrain.cli.printing import document

    connection = connected(kubeconfig, context, namespace)
    found = subjects(connection.session, name)
    answers = (answer(investigate(connection.session, each, stores(connection)), now()) for each in found)
    if form is not None:
        verbatim(document({"answers": [asdict(each) for each in answers]}, form))
        return
    for index, each in enumerate(answers):
        if index:
            output.print()
        output.print(each.text())


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
        verbatim(objects(own, form))
    elif not any(loop.runs for loop in found.loops):
        errors.print("There are no training runs.")
    else:
        output.print(Fitted(runs_table(found.loops, now(), namespaced=everywhere)))


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
        verbatim(line)


def _print_objects(session: "Session", project: str | None, *, everywhere: bool, form: Format) -> None:
    from drivetrain.cli.loops import read
    from drivetrain.cli.printing import objects

    verbatim(objects(read(session, project, everywhere=everywhere).documents, form))


def _trees(session: "Session", project: str | None, *, everywhere: bool) -> RenderableType:
    from drivetrain.cli.loops import read
    from drivetrain.cli.tree import loop_tree

    found = read(session, project, everywhere=everywhere)
    if not found.loops:
        where = "any namespace" if everywhere else f"namespace {session.namespace}"
        return Text(f"There is no project in {where}. Apply one: kubectl apply -f project.yaml")
    return Group(*(loop_tree(loop, now(), namespaced=everywhere) for loop in found.loops))


def _watch(session: "Session", project: str | None, *, everywhere: bool) -> None:
    """Redraws on a terminal; elsewhere prints the tree each time that it has changed."""

    def seen() -> RenderableType:
        try:
            return _trees(session, project, everywhere=everywhere)
        except UnavailableError as error:  # whoever watches wants to go on watching when it is back
            return Text(str(error))

    if not output.is_terminal:
        shown = ""
        while True:
            with output.capture() as captured:
                output.print(Fitted(seen()))
            if captured.get() != shown:
                shown = captured.get()
                verbatim(shown)
            time.sleep(WATCH_SECONDS)
    from rich.live import Live

    with Live(console=output, auto_refresh=False, screen=False) as live:
        while True:
            live.update(Fitted(seen()), refresh=True)
            time.sleep(WATCH_SECONDS)
