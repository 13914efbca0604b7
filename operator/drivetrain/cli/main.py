"""`drivetrain`, also as the kubectl plugin `kubectl drivetrain`: one tree of commands."""

import sys

from drivetrain.api.errors import DrivetrainError, InvalidSpecError
from drivetrain.cli import asking, judging, keeping, machine, watching
from drivetrain.cli.application import ORDER, PLUGIN, app, errors, program

__all__ = ["app", "asking", "judging", "keeping", "kubectl_complete", "machine", "main", "watching"]

# Each module registers its commands as it is imported.
app.registered_commands.sort(key=lambda command: ORDER.index(command.name or ""))


def main() -> None:
    """Runs a command; what a person can act on is one line on stderr and exit code 1, never a traceback."""
    try:
        called = "kubectl drivetrain" if program() == PLUGIN else "drivetrain"
        app(prog_name=called, complete_var=keeping.COMPLETE_VARIABLE)
    except InvalidSpecError as error:
        for problem in error.problems:
            errors.print(str(problem))
        sys.exit(1)
    except DrivetrainError as error:
        errors.print(f"error: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        errors.print("interrupted; run it again to go on")
        sys.exit(130)


def kubectl_complete() -> None:
    """The entry point kubectl_complete-drivetrain."""
    keeping.kubectl()
