"""The chart as Helm renders it, without a cluster."""

import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import yaml

from drivetrain.api.documents import JSON, Document, name_of, namespace_of, text
from tests.support.api_server import binary

CHART = Path(__file__).parents[2] / "charts" / "drivetrain"
RELEASE = "drivetrain"
NAMESPACE = "drivetrain"
VERSION = ("--kube-version", "1.36.0")
"""Helm built without its release flags takes 1.20 for the version of a cluster that it does not ask."""


class HelmError(Exception):
    """Helm refused; its message."""


def helm(*arguments: str, values: Mapping[str, JSON] | None = None) -> str:
    """Run Helm and return what it printed; fails the test where there is no Helm."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(values or {}, file)
        command = [binary("helm"), *arguments, *(["--values", file.name] if values is not None else [])]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise HelmError(done.stderr)
    return done.stdout


def render(
    values: Mapping[str, JSON] | None = None, *, chart: Path = CHART, tests: bool = False
) -> tuple[Document, ...]:
    """Return everything that `helm install` would create, hooks only with `tests`."""
    flags = [] if tests else ["--no-hooks"]
    told = helm("template", RELEASE, str(chart), "--namespace", NAMESPACE, *VERSION, *flags, values=values)
    return tuple(each for each in yaml.load_all(told, yaml.CSafeLoader) if each)


def of_kind(rendered: tuple[Document, ...], kind: str, name: str = "") -> tuple[Document, ...]:
    """Return the objects of a kind, of a name if one is given."""
    return tuple(each for each in rendered if text(each, "kind") == kind and name in ("", name_of(each)))


def identities(rendered: tuple[Document, ...]) -> list[tuple[str, str, str]]:
    """Return kind, namespace and name of each object."""
    return [(text(each, "kind"), namespace_of(each), name_of(each)) for each in rendered]
