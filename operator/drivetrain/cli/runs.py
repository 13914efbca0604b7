"""`drivetrain runs`: training runs as a table. Pure."""

from collections.abc import Sequence
from datetime import datetime

from rich.table import Table
from rich.text import Text

from drivetrain.cli.loops import Loop
from drivetrain.cli.tree import run_state
from drivetrain.cli.wording import STYLES, ago, number

WHY_WIDTH = 30
"""The only column that is wrapped is not narrower."""


def runs_table(loops: Sequence[Loop], now: datetime, *, namespaced: bool = False) -> Table:
    """The runs of all loops, newest first within each; `namespaced` adds the namespace."""
    headings = ("NAME", "PROJECT", "CAUSE", "STATE", "STAGE", "VERSION", "ATTEMPT", "GPU-H", "AGE", "WHY")
    rows: list[tuple[Text | str, ...]] = []
    for loop in loops:
        summaries = {each.name: each for each in loop.project.status.runs} if loop.project else {}
        for run in loop.runs:
            status, stands = run.status, run_state(run, summaries.get(run.metadata.name))
            busy = stands.tone == "busy" and status.stage
            row = (
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
            rows.append((loop.namespace, *row) if namespaced else row)
    table = Table(box=None, pad_edge=False, header_style="")
    for *cells, heading in zip(*rows, ("NAMESPACE", *headings) if namespaced else headings, strict=True):
        widest = max(len(cell) for cell in (heading, *cells))
        table.add_column(heading, min_width=WHY_WIDTH if heading == "WHY" else widest, overflow="fold")
    for each in rows:
        table.add_row(*each)
    return table
