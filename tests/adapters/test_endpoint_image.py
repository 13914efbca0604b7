"""The endpoint is built by Serve before any replica starts, and not in an image that does not fit."""

import pytest

from drivetrain.api.errors import ImageError


def test_an_endpoint_is_not_built_in_an_image_with_another_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    from drivetrain.serving.app import build  # Ray's import takes seconds, so only here

    build({})
    monkeypatch.setenv("DRIVETRAIN_EXPECTED_RAY", "2.59.1")
    with pytest.raises(ImageError, match=r"expected 2\.59\.1"):
        build({})
