"""`drivetrain demo`: plays the orange juice example of a source checkout."""

import importlib
import sys
from pathlib import Path

from drivetrain.api.errors import DrivetrainError

_CHECKOUT = Path(__file__).resolve().parents[3]


def tell(state: Path, *, keep: bool) -> int:
    """Plays the demo in `state`; returns the exit code, 0 only when every act passed."""
    if not (_CHECKOUT / "examples" / "orange_juice").is_dir():
        raise DrivetrainError(
            "The demo is part of the source checkout, which this installation is not.",
            remedy="Clone the repository and run `make demo`.",
        )
    if str(_CHECKOUT) not in sys.path:
        sys.path.insert(0, str(_CHECKOUT))
    code: int = importlib.import_module("examples.orange_juice.demo").play(state, keep=keep)
    return code
