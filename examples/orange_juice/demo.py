"""The demo as one call: the stage is opened, the story told, the report written, the stage closed."""

import os
import shutil
import sys
import time
from pathlib import Path

from rich.console import Console

from drivetrain.api.errors import DrivetrainError
from drivetrain.local import environment
from drivetrain.local.statedir import StateDir
from examples.orange_juice import report
from examples.orange_juice.story import open_stage
from examples.orange_juice.view import View

MARK = ".orange-juice"
"""Says that a folder is the demo's, and may be emptied."""


def play(folder: Path, *, keep: bool) -> int:
    """Tells the whole story in `folder`; returns 0 when every act passed. Everything is stopped unless `keep`."""
    state = _empty(StateDir(folder))
    console = Console(highlight=False)
    with View(console) as view:
        try:
            story, stage, addresses = open_stage(state, view)
            began = time.monotonic()
            result = story.play()
            surface = stage.traffic.surface() if result.passed else []
            stage.close_shop()
            told = report.Told(result, stage.record, stage.scenes, surface, addresses)
            page = report.write_page(folder / "report", told)
            result.durations["components ready to report"] = time.monotonic() - began
            numbers = report.write_numbers(folder / "report", told)
        finally:
            if not keep:
                environment.down(state, view.progress)
    for line in report.summary(told, (page, numbers), report.next_commands(state, _program(), kept=keep)):
        console.print(line, markup=False, soft_wrap=True)
    return 0 if result.passed else 1


def _empty(state: StateDir) -> StateDir:
    """A folder without an earlier demo. Raises DrivetrainError for one that holds anything else."""
    mark = state.root / MARK
    if state.root.is_dir() and any(state.root.iterdir()):
        if not mark.exists():
            raise DrivetrainError(f"{state.root} is not empty.", remedy="Name an empty folder with --state.")
        environment.down(state, lambda component, message: None)
        shutil.rmtree(state.root)
    state.root.mkdir(parents=True, exist_ok=True)
    mark.touch()
    return state


def _program() -> str:
    """How this program is called from here."""
    found = shutil.which("drivetrain")
    own = Path(sys.executable).with_name("drivetrain")
    return "drivetrain" if found and Path(found) == own else os.path.relpath(own)
