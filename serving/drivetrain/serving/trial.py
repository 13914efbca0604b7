"""Tries a model in a process of its own, so that a graph that crashes or hangs the runtime never does so in a replica.

`python -m drivetrain.serving.trial FOLDER` ends with 0, or with 1 and the reason on standard error.
"""

import os
import subprocess
import sys
from pathlib import Path

from drivetrain.api.errors import ModelError
from drivetrain.serving.graph import Graph, check, read_contract

TRIAL_SECONDS = 120.0
_NICENESS = 19
"""A trial takes a second of CPU, most of it for imports; whoever answers requests goes first."""


def try_model(folder: Path, *, timeout: float = TRIAL_SECONDS) -> None:
    """Loads and runs the model in a child process. Raises ModelError, reason ModelInvalid, if it fails."""
    command = [sys.executable, "-m", "drivetrain.serving.trial", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as child:
        # From here: code run in the child before its program would need a fork of this process, threads and all.
        os.setpriority(os.PRIO_PROCESS, child.pid, _NICENESS)
        try:
            _, said = child.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            child.kill()
            raise ModelError("ModelInvalid", f"The model did not answer on sample rows within {timeout:g} s.") from None
    if child.returncode:
        lines = said.strip().splitlines()
        cause = lines[-1] if lines else f"its process ended with {child.returncode}"
        raise ModelError("ModelInvalid", f"The model fails on sample rows: {cause[:500]}")


def main(folder: str) -> int:
    """The child process."""
    try:
        check(Graph.open(Path(folder), read_contract(Path(folder))))
    except ModelError as error:
        sys.stderr.write(f"{error.message}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
