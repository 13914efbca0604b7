"""docs/cli.md, written from the parser: `python -m drivetrain.cli.reference FILE`."""

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from typer.main import get_command

from drivetrain.api.kinds import LOCAL_QUEUE, WORKLOAD
from drivetrain.cli.examination import NEEDED, USEFUL
from drivetrain.cli.main import app

_HEAD = """\
<!-- Generated from the parser: python -m drivetrain.cli.reference docs/cli.md -->

# The command line

`drivetrain` and `kubectl drivetrain` are the same program; kubectl finds the plugin as `kubectl-drivetrain` on PATH. It
has the rights of whoever runs it. What somebody may not read is left out and named; `drivetrain doctor` lists it.

**Which cluster.** `--kubeconfig`, `--context` or KUBECONFIG decide. Without them `drivetrain` talks to the environment
that `drivetrain up` runs on this machine, and else to the current context of `~/.kube/config`. `kubectl drivetrain`
talks to what kubectl talks to, and to that environment only where there is no `~/.kube/config`.

**Exit codes.** 0: it is done, or all is well. 1: it was refused, it failed, or a check failed; one line on stderr names
cause and remedy. 2: the command line is wrong. 130: interrupted.

**Output.** `-o json|yaml|name` prints objects as `kubectl get` does; `why`, `plan` and `doctor` print what they found
with `-o json|yaml`. Without a terminal nothing is coloured, no line is cut or wrapped, and `status --watch` prints the
tree each time that it has changed.

**Completion.** `source <(drivetrain completion bash)`, or zsh, or `drivetrain completion fish | source`; names of
objects are completed too. kubectl completes `kubectl drivetrain` through `kubectl_complete-drivetrain` on PATH.
"""


_RIGHTS = """
## Rights

A Role for people, beside the right to create what they apply. What is marked is left out where it is missing, except
that Secrets are better replaced by keys of one's own in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.
"""


def reference() -> str:
    """The page."""
    group: Any = get_command(app)  # typer has its own copy of click, without public types
    told = [_HEAD, "| command | what it does |", "|---|---|"]
    commands = [group.get_command(None, name) for name in group.list_commands(None)]
    told += [f"| [`{command.name}`](#{command.name}) | {_help(command)[0]} |" for command in commands]
    for command in commands:
        told += ["", *_section(command)]
    return "\n".join([*told, _RIGHTS, "```yaml", "rules:", *_rules(), "```", ""])


def _rules() -> Iterator[str]:
    """The rules of a Role, by what `doctor` looks for."""
    kueue = ("list", WORKLOAD, ""), ("get", LOCAL_QUEUE, ""), ("list", LOCAL_QUEUE, "")
    for rights, note in ((NEEDED, ""), ((*USEFUL, *kueue), "  # left out where missing")):
        verbs: dict[tuple[str, str], list[str]] = {}
        for verb, kind, subresource in rights:
            resource = f"{kind.plural}/{subresource}" if subresource else kind.plural
            verbs.setdefault((kind.group, resource), []).append(verb)
        for (group, resource), found in verbs.items():
            yield f'- {{apiGroups: ["{group}"], resources: [{resource}], verbs: [{", ".join(found)}]}}{note}'


def _section(command: Any) -> Iterator[str]:
    context = typer.Context(command, info_name=command.name)
    usage = " ".join(piece.strip("{}") for piece in command.collect_usage_pieces(context))
    yield f"## {command.name}"
    yield ""
    yield f"`drivetrain {command.name} {usage}`"
    for paragraph in _help(command):
        yield ""
        yield paragraph
    records = (each.get_help_record(context) for each in command.get_params(context) if each.name != "help")
    rows = [(spelled, " ".join(told.split())) for spelled, told in records]
    if rows:
        yield ""
        yield "| | |"
        yield "|---|---|"
        yield from (f"| `{spelled.replace('|', chr(92) + '|')}` | {told} |" for spelled, told in rows)


def _help(command: Any) -> list[str]:
    text = inspect.cleandoc(command.help or "")
    return [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(reference(), encoding="utf-8")
