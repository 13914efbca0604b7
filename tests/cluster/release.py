"""The chart, installed with Helm as the README says; a values file names images that the cluster has."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from drivetrain.api.documents import JSON, Document
from tests.cluster.images import Images
from tests.cluster.kubectl import Kubectl

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "drivetrain"
NAME, NAMESPACE = "drivetrain", "drivetrain-system"
OPERATOR_PODS = "app.kubernetes.io/component=operator"
READY_SECONDS = 240
"""MLflow makes its tables first."""


def of_images(images: Images) -> dict[str, JSON]:
    """Values that name images, with the evaluation's servers turned on."""

    def named(image: str) -> dict[str, JSON]:
        repository, _, tag = image.rpartition(":")
        return {"repository": repository, "tag": tag}

    servers: dict[str, JSON] = {"s3": {"image": named(images.s3)}, "mlflow": {"image": named(images.mlflow)}}
    return {
        "image": named(images.operator),
        "rayImage": named(images.ray),
        "evaluation": {"enabled": True, **servers},
    }


def helm(*arguments: str, values: Mapping[str, JSON] | None = None, seconds: float = READY_SECONDS) -> str:
    """Runs Helm in the release's namespace and returns what it printed. Fails with what it said."""
    command = ["helm", *arguments, "--namespace", NAMESPACE]
    command += ["--values", "-"] if values is not None else []
    content = None if values is None else json.dumps(values)
    done = subprocess.run(
        command, input=content, capture_output=True, text=True, timeout=seconds + 30, check=False, cwd=ROOT
    )
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.strip()}\n{done.stdout[-3000:]}"
    return done.stdout


@contextmanager
def installed(cluster: Kubectl, images: Images, *, chart: Path = CHART, **values: JSON) -> Iterator[Kubectl]:
    """Installs the release and removes it; yields kubectl in its namespace."""
    with uninstalled(cluster) as system:
        helm(
            *("install", NAME, str(chart), "--take-ownership", "--wait", f"--timeout={READY_SECONDS}s"),
            values={**of_images(images), **values},
        )
        yield system


@contextmanager
def uninstalled(cluster: Kubectl) -> Iterator[Kubectl]:
    """Yields kubectl in the release's namespace, which enforces `restricted`, and removes the release afterwards.

    Of a failure the operator's log is told first.
    """
    cluster.apply(a_namespace(NAMESPACE))
    system = cluster.within(NAMESPACE)
    try:
        yield system
    except BaseException:
        sys.stderr.write(system("logs", "-l", OPERATOR_PODS, "--tail=40", "--prefix", "--ignore-errors"))
        raise
    finally:
        helm("uninstall", NAME, "--ignore-not-found", "--wait", "--timeout=120s")


def a_namespace(name: str, **labels: str) -> Document:
    """A namespace that enforces Pod Security `restricted`, and warns of templates that would break it."""
    security = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {**security, **labels}}}


def run(*command: str, seconds: float) -> str:
    """Runs a command of the repository from its root, as a person would; fails with what it said."""
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=seconds, check=False, cwd=ROOT, env=dict(os.environ)
    )
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.strip()}\n{done.stdout[-3000:]}"
    return done.stdout
