"""What KubeRay and the embedded mode's agent must have in common, written once and run against both."""

import pytest

pytest.register_assert_rewrite("tests.conformance.cases")
