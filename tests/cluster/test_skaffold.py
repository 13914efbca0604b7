"""skaffold.yaml says what Skaffold understands, about files, chart values and images that there are."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # ships neither annotations nor stubs
import pytest
import yaml

from drivetrain.local.gobuild import module_folder
from drivetrain.local.pins import Pin
from tests.cluster.images import ROOT

SKAFFOLD = Pin(
    name="skaffold",
    version="2.16.1",
    release="",
    module="github.com/GoogleContainerTools/skaffold/v2",
    sum="h1:eMrp2qpn/5j2c1P/JqLo+mxcpEIdtokb/tCY2W/05ic=",
)
CONFIG = yaml.safe_load((ROOT / "skaffold.yaml").read_text())


@pytest.fixture(scope="module")
def schema() -> Any:
    """The schema of the version that skaffold.yaml names, from Skaffold's Go module (45 MB, once a machine)."""
    go = shutil.which("go")
    assert go is not None, "go is not in PATH"
    module = module_folder(SKAFFOLD, go, lambda text: None)
    version = CONFIG["apiVersion"].removeprefix("skaffold/")
    return json.loads((module / "docs-v2" / "content" / "en" / "schemas" / f"{version}.json").read_text())


def test_skaffold_understands_the_file(schema: Any) -> None:
    jsonschema.validate(CONFIG, schema)


def test_the_schema_would_refuse_a_misspelt_field(schema: Any) -> None:
    misspelt = json.loads(json.dumps(CONFIG))
    misspelt["build"]["artifacts"][0]["sync"]["manuel"] = []
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(misspelt, schema)


def test_what_the_file_names_is_there() -> None:
    for artifact in CONFIG["build"]["artifacts"]:
        dockerfile = (ROOT / artifact["docker"]["dockerfile"]).read_text()
        for argument in artifact["docker"]["buildArgs"]:
            assert f"ARG {argument}" in dockerfile
        for synced in artifact["sync"]["manual"]:
            folder = synced["src"].removesuffix("/**/*.py")
            assert list((ROOT / folder).glob("**/*.py")), f"{folder} holds no Python file"
            assert f"COPY {folder} /opt/drivetrain/{folder}" in dockerfile


def test_the_hooks_are_valid_shell(tmp_path: Path) -> None:
    for artifact in CONFIG["build"]["artifacts"]:
        for hook in (*artifact["sync"]["hooks"]["before"], *artifact["sync"]["hooks"]["after"]):
            shell, option, script = hook["container"]["command"]
            assert (shell, option) == ("sh", "-c")
            subprocess.run(["sh", "-n", "-c", script], check=True, cwd=tmp_path)


def test_the_chart_has_the_values_that_are_set() -> None:
    (release,) = CONFIG["deploy"]["helm"]["releases"]
    values = yaml.safe_load((ROOT / release["chartPath"] / "values.yaml").read_text())
    for path in release["setValueTemplates"]:
        found: Any = values
        for key in path.split("."):
            assert key in found, f"the chart has no value {path}"
            found = found[key]
