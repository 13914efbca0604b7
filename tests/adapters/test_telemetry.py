"""What ONNX Runtime leaves behind when it means to call its makers, and that it does not where we forbid it."""

import os
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
    own = {name: value for name, value in os.environ.items() if name not in {*NO_TELEMETRY, "XDG_CACHE_HOME"}}
    nowhere = {"https_proxy": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"}
    command = [sys.executable, "-c", PROGRAM]
    subprocess.run(command, env={**own, **nowhere, "HOME": str(tmp_path), **environment}, check=True, timeout=60)
    assert any(tmp_path.rglob("deviceid")) == identified
