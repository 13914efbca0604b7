"""An image with other versions than the operator expects is refused before anything is done with it."""

import tomllib
from pathlib import Path

import pytest

from drivetrain.api import image
from drivetrain.api.errors import ImageError
from drivetrain.api.names import EXPECTED_PYTHON_ENV, EXPECTED_RAY_ENV, EXPECTED_VERSION_ENV

HELD = {EXPECTED_RAY_ENV: "2.60.0", EXPECTED_PYTHON_ENV: "3.11.2", EXPECTED_VERSION_ENV: "0.1.0"}


@pytest.mark.parametrize(
    "expected",
    [
        {},
        HELD,
        {EXPECTED_RAY_ENV: "2.60.0", EXPECTED_PYTHON_ENV: "3.11", EXPECTED_VERSION_ENV: "0.1"},
        {EXPECTED_RAY_ENV: ""},
    ],
)
def test_an_expected_version_binds_as_far_as_it_goes(expected: dict[str, str]) -> None:
    image.check(expected, HELD)


@pytest.mark.parametrize("expected", ["2.6", "2.60.1", "2.60.0.1", "3"])
def test_another_version_of_ray_is_refused(expected: str) -> None:
    with pytest.raises(ImageError, match=f"Ray is 2.60.0, expected {expected}") as raised:
        image.check({EXPECTED_RAY_ENV: expected}, HELD)
    assert raised.value.reason == "ImageUnsupported"


def test_every_difference_is_named_at_once() -> None:
    expected = {EXPECTED_RAY_ENV: "2.61.0", EXPECTED_PYTHON_ENV: "3.12", EXPECTED_VERSION_ENV: "0.2"}
    with pytest.raises(ImageError) as raised:
        image.check(expected, HELD | {EXPECTED_RAY_ENV: ""})
    told = "Ray is missing, expected 2.61.0; Python is 3.11.2, expected 3.12; Drivetrain is 0.1.0, expected 0.2."
    assert told in str(raised.value)


def test_the_versions_of_this_process_are_found() -> None:
    image.check(image.found(), image.found())
    assert all(image.found().values())


def test_the_version_in_the_source_is_that_of_the_distribution() -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    assert project["version"] == image.VERSION
