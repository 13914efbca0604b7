"""The command line's frame: the application, its options, where it writes, and how it reaches a cluster.

Exit codes: 0 it is done, or all is well; 1 it was refused, it failed, or a check failed; 2 the command line is wrong;
130 interrupted.
"""

import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from drivetrain.cli.printing import Rendering

if TYPE_CHECKING:
    from drivetrain.api.v1alpha1.dataset import Store
    from drivetrain.cli.connection import Connection
    from drivetrain.local.statedir import StateDir
    from drivetrain.store import ObjectStore

PLUGIN = "kubectl-drivetrain"
ORDER = """status why runs logs retrain approve promote abort pause resume retry cancel
validate plan poc doctor purge up down components demo completion""".split()
"""Of commands in the help: to see, to ask, to judge, to keep, and this machine."""

app = typer.Typer(
    name="drivetrain",
    help="Decisions, not scores: declare an objective and levers, and run the loop that learns from acting.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
# Neither markup nor emoji: both are found in what others wrote, as in `train.py:100: UserWarning`.
output = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
errors = Console(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False)

_NAMES_SECONDS = 3.0
"""For the names that completion offers: nobody waits longer for a Tab."""


def program() -> str:
    """The name by which this process was called."""
    return Path(sys.argv[0]).name


def verbatim(text: str) -> None:
    """Writes what programs read, or wrote, as it is: with its tabs and control characters, which Rich replaces."""
    print(text, flush=True)


def now() -> datetime:
    """The time; everything below takes it as an argument."""
    return datetime.now(UTC)  # noqa: TID251 - the command line is the edge that reads the clock


def progress(component: str, message: str) -> None:
    """Tells on stderr how far something is."""
    errors.print(f"{component:>22}  {message}")


def state_dir(folder: Path | None) -> "StateDir":
    """The folder of the environment on this machine."""
    from drivetrain.local.statedir import StateDir, default_state_dir

    return StateDir(folder) if folder else default_state_dir(os.environ, Path.home())


def connected(
    kubeconfig: Path | None, context: str | None, namespace: str | None, *, seconds: float = 30.0
) -> "Connection":
    """A session with the cluster that the options name. Raises DrivetrainError."""
    from drivetrain.cli.connection import Asked, connect

    return connect(Asked(kubeconfig, context, namespace), program=program(), timeout=seconds)


def stores(connection: "Connection") -> "Callable[[Store, str], ObjectStore]":
    """Opens projects' stores with the keys of this person."""
    from drivetrain.cli.keys import store_of

    endpoint = connection.local.s3 if connection.local else None
    return lambda store, namespace: store_of(connection.session, store, namespace, os.environ, endpoint=endpoint)


def _named(*plurals: str) -> Callable[[typer.Context, str], list[str]]:
    """Offers the names of objects to the shell; nothing where the cluster cannot be asked."""

    def names(context: typer.Context, incomplete: str) -> list[str]:
        from drivetrain.api.documents import name_of
        from drivetrain.api.errors import DrivetrainError
        from drivetrain.api.kinds import OWN_KINDS

        given = context.params
        try:
            session = connected(
                given.get("kubeconfig"), given.get("context"), given.get("namespace"), seconds=_NAMES_SECONDS
            ).session
            kinds = [kind for kind in OWN_KINDS if kind.plural in plurals]
            found = {name_of(each) for kind in kinds for each in session.list(kind)}
        except DrivetrainError:
            return []
        return sorted(name for name in found if name.startswith(incomplete))

    return names


projects = _named("drivetrainprojects")
runs = _named("trainingruns")
deployments = _named("drivetraindeployments")
everything = _named("drivetrainprojects", "trainingruns", "drivetraindeployments")

StateOption = Annotated[
    Path | None, typer.Option("--state", help="Folder that holds the embedded environment; one of yours when absent.")
]
NamespaceOption = Annotated[str | None, typer.Option("--namespace", "-n", help="Namespace; the context's when absent.")]
EverywhereOption = Annotated[bool, typer.Option("--all-namespaces", "-A", help="Look into all namespaces.")]
ContextOption = Annotated[str | None, typer.Option("--context", help="Context of the kubeconfig.")]
KubeconfigOption = Annotated[
    Path | None,
    typer.Option("--kubeconfig", help="Kubeconfig; KUBECONFIG, else the environment of `drivetrain up`, when absent."),
]
RenderingOption = Annotated[Rendering | None, typer.Option("--output", "-o", help="Print it for a program.")]
FollowOption = Annotated[bool, typer.Option("--follow", "-f", help="Keep printing what is added.")]
FilesArgument = Annotated[list[Path], typer.Argument(metavar="FILE...", help="Manifest files.")]
