"""What ONNX Runtime leaves behind when it means to call its makers, and that it does not where we forbid it."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from drivetrain.api.names import NO_TELEMETRY

PROGRAM = """
import onnxruntime
from onnxruntime import datasets
onnxruntime.InferenceSession(datasets.get_example("sigmoid.onnx"), providers=["CPUExecutionProvider"])
"""


@pytest.mark.parametrize(
    ("environment", "identified"),
    [pytest.param({}, True, id="it is on unless told otherwise"), pytest.param(NO_TELEMETRY, False, id="it is off")],
)
def test_onnx_runtime_gives_this_machine_an_identity_only_where_telemetry_is_on(
    environment: Mapping[str, str], identified: bool, tmp_path: Path
) -> None:
    # Nothing of this process's environment: ONNX Runtime turns telemetry off by itself where `CI` or the like is set.
    bare = {"HOME": str(tmp_path), "https_proxy": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"}
    subprocess.run([sys.executable, "-c", PROGRAM], env={**bare, **environment}, check=True, timeout=60)
    assert any(tmp_path.rglob("deviceid")) == identified
