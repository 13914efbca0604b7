"""`drivetrain runs`: training runs as a table. Pure."""

from collections.abc import Sequence
from datetime import datetime

from rich.table import Table
from rich.text import Text

from drivetrain.cli.loops import Loop
from drivetrain.cli.tree import run_state
from drivetrain.cli.wording import STYLES, ago, number


def runs_table(loops: Sequence[Loop], now: datetime, *, namespaced: bool = False) -> Table:
    """The runs of all loops, newest first within each; `namespaced` adds the namespace."""
    table = Table(box=None, pad_edge=False, header_style="")
    for heading in (("NAMESPACE",) if namespaced else ()) + (
        *("NAME", "PROJECT", "CAUSE", "STATE", "STAGE", "VERSION", "ATTEMPT", "GPU-H", "AGE"),
    ):
        table.add_column(heading, no_wrap=True)
    table.add_column("WHY")
    for loop in loops:
        summaries = {each.name: each for each in loop.project.status.runs} if loop.project else {}
        for run in loop.runs:
            status, stands = run.status, run_state(run, summaries.get(run.metadata.name))
            busy = stands.tone == "busy" and status.stage
            table.add_row(
                *((loop.namespace,) if namespaced else ()),
                run.metadata.name,
                loop.name,
                run.spec.trigger.cause,
                Text(str(stands), style=STYLES[stands.tone]),
                f"{status.stage} {status.progress.percent} %" if busy else "",
                status.model_version or "",
                f"{status.attempt} of {run.spec.attempts}" if status.attempt else "",
                number(status.gpu_seconds / 3600) if status.gpu_seconds else "",
                ago(run.metadata.creation_timestamp, now),
                status.why,
            )
    return table
