"""Commands by which a person asks something of the loop: each sets one annotation, which the operator answers once."""

from collections.abc import Callable
from typing import Annotated

import typer

from drivetrain.cli import application
from drivetrain.cli.application import ContextOption, KubeconfigOption, NamespaceOption, app, connected, output

Names = Callable[[typer.Context, str], list[str]]


def _verb(name: str, metavar: str, names: Names, told: str) -> None:
    """Registers a command that sets one annotation on one object."""

    def command(
        target: Annotated[str, typer.Argument(metavar=metavar, help=f"Name of the {metavar}.", autocompletion=names)],
        namespace: NamespaceOption = None,
        context: ContextOption = None,
        kubeconfig: KubeconfigOption = None,
    ) -> None:
        from drivetrain.cli import verbs

        ask: Callable[[verbs.Session, str], verbs.Asked] = getattr(verbs, name)
        asked = ask(connected(kubeconfig, context, namespace).session, target)
        output.print(f"{asked.ref}: {asked.annotation}={asked.value or '(removed)'}")

    app.command(name=name, help=told)(command)


_verb("retrain", "PROJECT", application.projects, "Start a training run by hand.")
_verb("approve", "PROJECT", application.projects, "Let the version that awaits approval enter a rollout.")
_verb("promote", "DEPLOYMENT", application.deployments, "Make the candidate stable at once, whatever the evidence.")
_verb("abort", "DEPLOYMENT", application.deployments, "End the rollout and reject its candidate.")
_verb("retry", "DEPLOYMENT", application.deployments, "Allow the newest rejected policy one more rollout.")
_verb("pause", "DEPLOYMENT", application.deployments, "Hold the rollout at its step.")
_verb("resume", "DEPLOYMENT", application.deployments, "Let a paused rollout go on.")
_verb("cancel", "TRAININGRUN", application.runs, "Stop a training run for good.")
