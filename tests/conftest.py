"""Fixtures that all tests share."""

import os

from drivetrain.api.names import NO_TELEMETRY

pytest_plugins = ["tests.support.api_server", "tests.support.s3"]
os.environ.update(NO_TELEMETRY)
