"""Fixtures that all tests share."""

pytest_plugins = ["tests.support.api_server", "tests.support.s3"]
