"""The `drivetrain` command: wiring of options, sessions and output. What a command does lives in its own module."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from drivetrain.api.errors import DrivetrainError, InvalidSpecError

if TYPE_CHECKING:
    from drivetrain.local.statedir import StateDir

app = typer.Typer(
    name="drivetrain",
    help="Decisions, not scores: declare an objective and levers, and run the loop that learns from acting.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

StateOption = Annotated[
    Path | None, typer.Option("--state", help="Folder that holds the embedded environment; one of yours when absent.")
]
NamespaceOption = Annotated[str | None, typer.Option("--namespace", "-n", help="Namespace; the context's when absent.")]
ContextOption = Annotated[str | None, typer.Option("--context", help="Context of the kubeconfig.")]
KubeconfigOption = Annotated[Path | None, typer.Option("--kubeconfig", help="Kubeconfig; KUBECONFIG when absent.")]
output = Console(highlight=False, soft_wrap=True)
errors = Console(stderr=True, highlight=False, soft_wrap=True)


@app.command()
def validate(files: Annotated[list[Path], typer.Argument(help="Manifest files.")]) -> None:
    """Say offline what admission and the operator would say of manifests, with file, line and remedy."""
    from drivetrain.cli.validation import validate as check

    verdict = check(files)
    for told in (*verdict.unreadable, *verdict.findings):
        output.print(str(told), markup=False)
    if verdict.problems:
        errors.print(f"problems: {verdict.problems}; resources checked: {verdict.checked}")
        raise typer.Exit(1)
    output.print(f"{verdict.checked} resources are valid; {verdict.other} of other groups were not judged")


@app.command()
def up(state: StateOption = None) -> None:
    """Start the whole platform on this machine, without root or containers; a second call changes nothing."""
    from drivetrain.local import environment

    addresses = environment.up(_state(state), _progress)
    output.print(f"export KUBECONFIG={addresses.kubeconfig}")
    output.print(
        f"# MLflow {addresses.mlflow}  Ray {addresses.ray_dashboard}  S3 {addresses.s3} (bucket {addresses.bucket})"
    )


@app.command()
def down(state: StateOption = None) -> None:
    """Stop everything that `up` started; data stays."""
    from drivetrain.local import environment

    environment.down(_state(state), _progress)


@app.command()
def status(state: StateOption = None) -> None:
    """Show the components of the embedded environment."""
    from drivetrain.local import environment

    components = environment.status(_state(state))
    if not components:
        output.print("Nothing runs. Start it with `drivetrain up`.")
        raise typer.Exit(1)
    table = Table("component", "phase", "restarts", "address", "message", box=None)
    for component in components:
        table.add_row(component.name, component.phase, str(component.restarts), component.address, component.message)
    output.print(table)


@app.command()
def logs(
    component: Annotated[str, typer.Argument(help="Component, as `drivetrain status` names it.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Keep printing what is added.")] = False,
    lines: Annotated[int, typer.Option("--lines", help="How many of the last lines.")] = 200,
    state: StateOption = None,
) -> None:
    """Print a component's log."""
    from drivetrain.local import environment

    source = environment.follow if follow else environment.logs
    for line in source(_state(state), component, lines=lines):
        output.print(line, markup=False)


@app.command()
def poc(
    file: Annotated[Path, typer.Argument(help="Manifest of a DrivetrainProject.")],
    rows: Annotated[int, typer.Option("--rows", help="Rows of data to sample.", min=100)] = 5_000,
    folder: Annotated[Path, typer.Option("--folder", help="Where results go.")] = Path(".drivetrain/poc"),
) -> None:
    """Run the assembly line on a sample of the data, in one process tree, without a cluster or server."""
    from drivetrain.cli.proof import prove

    for line in prove(file, folder=folder, rows=rows, progress=_progress):
        output.print(line, markup=False)


@app.command()
def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running at the end.")] = False,
    state: Annotated[Path, typer.Option("--state", help="Folder of the demo; emptied first.")] = Path(
        ".drivetrain/demo"
    ),
) -> None:
    """Run the orange juice project round the whole loop on this machine, and report what happened."""
    from drivetrain.cli.story import tell

    raise typer.Exit(tell(state, keep=keep))


def _verb(name: str, argument: str, help_text: str) -> None:
    """Registers a command that sets one annotation on one object."""

    def command(
        target: Annotated[str, typer.Argument(metavar=argument)],
        namespace: NamespaceOption = None,
        context: ContextOption = None,
        kubeconfig: KubeconfigOption = None,
    ) -> None:
        from drivetrain.cli import verbs
        from drivetrain.cli.session import Session

        ask: Callable[[Session, str], verbs.Asked] = getattr(verbs, name)
        asked = ask(Session.open(kubeconfig=kubeconfig, context=context, namespace=namespace), target)
        output.print(f"{asked.ref}: {asked.annotation}={asked.value or '(removed)'}")

    app.command(name=name, help=help_text)(command)


_verb("retrain", "PROJECT", "Start a training run by hand.")
_verb("approve", "PROJECT", "Let the version that awaits approval enter a rollout.")
_verb("promote", "DEPLOYMENT", "Make the candidate stable at once, whatever the evidence.")
_verb("abort", "DEPLOYMENT", "End the rollout and reject its candidate.")
_verb("retry", "DEPLOYMENT", "Allow the newest rejected policy one more rollout.")
_verb("pause", "DEPLOYMENT", "Hold the rollout at its step.")
_verb("resume", "DEPLOYMENT", "Let a paused rollout go on.")
_verb("cancel", "TRAININGRUN", "Stop a training run for good.")


def _state(folder: Path | None) -> "StateDir":
    from drivetrain.local.statedir import StateDir, default_state_dir

    return StateDir(folder) if folder else default_state_dir(os.environ, Path.home())


def _progress(component: str, message: str) -> None:
    errors.print(f"{component:>22}  {message}", markup=False)


def main() -> None:
    """Runs a command; what a person can act on is one line on stderr and exit code 1, never a traceback."""
    try:
        app()
    except InvalidSpecError as error:
        for problem in error.problems:
            errors.print(str(problem), markup=False)
        sys.exit(1)
    except DrivetrainError as error:
        errors.print(f"error: {error}", markup=False)
        sys.exit(1)
    except KeyboardInterrupt:
        errors.print("interrupted; run it again to go on")
        sys.exit(130)
