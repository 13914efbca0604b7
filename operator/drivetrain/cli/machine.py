"""Commands about the environment on this machine: up, down, components, demo."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from drivetrain.cli.application import FollowOption, StateOption, app, output, progress, state_dir, verbatim


@app.command("up")
def up(state: StateOption = None) -> None:
    """Start the whole platform on this machine, without root or containers; a second call changes nothing."""
    from drivetrain.local import environment

    addresses = environment.up(state_dir(state), progress)
    output.print(f"export KUBECONFIG={addresses.kubeconfig}")
    output.print(
        f"# MLflow {addresses.mlflow}  Ray {addresses.ray_dashboard}  S3 {addresses.s3} (bucket {addresses.bucket})"
    )


@app.command("down")
def down(state: StateOption = None) -> None:
    """Stop everything that `up` started; data stays."""
    from drivetrain.local import environment

    environment.down(state_dir(state), progress)


@app.command("components")
def components(
    component: Annotated[str | None, typer.Argument(metavar="COMPONENT", help="Print its log instead.")] = None,
    follow: FollowOption = False,
    lines: Annotated[int, typer.Option("--lines", help="How many of the last lines of the log.", min=1)] = 200,
    state: StateOption = None,
) -> None:
    """Show the components of the environment that `up` started, or the log of one of them."""
    from drivetrain.cli.fitting import Fitted
    from drivetrain.local import environment

    if component is not None:
        source = environment.follow if follow else environment.logs
        for line in source(state_dir(state), component, lines=lines):
            verbatim(line)
        return
    found = environment.status(state_dir(state))
    if not found:
        output.print("Nothing runs. Start it with `drivetrain up`.")
        raise typer.Exit(1)
    table = Table("component", "phase", "restarts", "address", "message", box=None)
    for each in found:
        table.add_row(each.name, each.phase, str(each.restarts), each.address, each.message)
    output.print(Fitted(table))


@app.command("demo")
def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running at the end.")] = False,
    state: Annotated[Path, typer.Option("--state", help="Folder of the demo; emptied first.")] = Path(
        ".drivetrain/demo"
    ),
) -> None:
    """Run the orange juice project round the whole loop on this machine, and report what happened."""
    from drivetrain.cli.story import tell

    raise typer.Exit(tell(state, keep=keep))
