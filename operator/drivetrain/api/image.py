"""Whether the image that a process runs in is the one that the operator rendered its Pod for."""

import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Final

from drivetrain.api.errors import ImageError
from drivetrain.api.names import EXPECTED_PYTHON_ENV, EXPECTED_RAY_ENV, EXPECTED_VERSION_ENV

VERSION: Final = "0.1.0"
"""Drivetrain's version, here because an image carries the source and no distribution of it."""
REASON: Final = "ImageUnsupported"


def found() -> dict[str, str]:
    """The versions inside this image, by the variable that says what is expected; empty where Ray is missing."""
    try:
        ray = metadata.version("ray")
    except metadata.PackageNotFoundError:
        ray = ""
    return {EXPECTED_RAY_ENV: ray, EXPECTED_PYTHON_ENV: platform.python_version(), EXPECTED_VERSION_ENV: VERSION}


def check(env: Mapping[str, str], versions: Mapping[str, str]) -> None:
    """Compares `versions` (see `found`) with what the operator expects. Raises ImageError naming every difference.

    An expected version binds as far as it goes: 3.11 is met by 3.11.2, 2.60.0 by 2.60.0 alone.
    """
    differences = [
        f"{_NAMES[variable]} is {version or 'missing'}, expected {expected}"
        for variable, version in versions.items()
        if (expected := env.get(variable, "")) and not _met(expected, version)
    ]
    if differences:
        raise ImageError(
            REASON,
            f"The image does not fit this operator: {'; '.join(differences)}.",
            remedy="Build it from the operator's release, or set cluster.rayVersion to the Ray version that it holds.",
        )


_NAMES: Final = {EXPECTED_RAY_ENV: "Ray", EXPECTED_PYTHON_ENV: "Python", EXPECTED_VERSION_ENV: "Drivetrain"}


def _met(expected: str, version: str) -> bool:
    wanted = expected.split(".")
    return version.split(".")[: len(wanted)] == wanted
