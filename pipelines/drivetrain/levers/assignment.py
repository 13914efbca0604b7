"""Assignment: which arm a unit belongs to and which numbers it draws, as stable hashes of (unit, salt)."""

import hashlib
from collections.abc import Sequence
from enum import StrEnum

import numpy as np

from drivetrain.levers.grid import Floats


class Arm(StrEnum):
    """What a unit follows."""

    STABLE = "stable"
    CANDIDATE = "candidate"
    HOLDOUT = "holdout"
    NONE = "none"


def uniforms(units: Sequence[str], salt: str) -> Floats:
    """A number in [0, 1) per unit, the same at every replica and call; other salts give independent numbers."""
    key = hashlib.blake2b(salt.encode(), digest_size=32).digest()
    hashed = b"".join(hashlib.blake2b(unit.encode(), digest_size=8, key=key).digest() for unit in units)
    return (np.frombuffer(hashed, dtype=">u8") >> np.uint64(11)).astype(np.float64) * 2.0**-53


def arms(units: Sequence[str], *, salt: str, rollout: str | None, holdout: float, weight: float) -> tuple[Arm, ...]:
    """The arm of each unit: the holdout for good, then the candidate for `weight` (0 to 1) of the others.

    A greater weight only moves units from stable to candidate. Every rollout divides the units anew.
    """
    held = uniforms(units, f"{salt}/holdout") < holdout
    candidate = uniforms(units, f"{salt}/rollout/{rollout}") < (weight if rollout is not None else 0.0)
    return tuple(
        Arm.HOLDOUT if held_out else Arm.CANDIDATE if chosen else Arm.STABLE
        for held_out, chosen in zip(held.tolist(), candidate.tolist(), strict=True)
    )
