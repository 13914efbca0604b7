"""Our images, built once per run and brought to the cluster by whatever command does that there.

`DRIVETRAIN_IMAGE_LOADER` is that command. It is called as `LOADER NAME CONTEXT OPTION...`, with the options of `docker
build` (`-f`, `--build-arg`), and ends once every node can start NAME. For kind, for instance:

    #!/bin/sh -e
    name=$1 context=$2; shift 2
    docker build -t "$name" "$@" "$context" && kind load docker-image "$name"

Without it, `DRIVETRAIN_OPERATOR_IMAGE` and `DRIVETRAIN_RAY_IMAGE` name images that the cluster can pull.
`DRIVETRAIN_IMAGE_BASE` replaces the production base, for clusters without a registry; what that one lacks is removed
from it first, and MLflow is built on it. `DRIVETRAIN_S3_IMAGE` then names an image with the program `/versitygw`.
"""

import os
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOADER_ENV = "DRIVETRAIN_IMAGE_LOADER"
BASE_ENV = "DRIVETRAIN_IMAGE_BASE"
OPERATOR_ENV = "DRIVETRAIN_OPERATOR_IMAGE"
RAY_ENV = "DRIVETRAIN_RAY_IMAGE"
MLFLOW_ENV = "DRIVETRAIN_MLFLOW_IMAGE"
S3_ENV = "DRIVETRAIN_S3_IMAGE"
PREFIX = "localhost/drivetrain"
TAG = "test"
BUILD_SECONDS = 900


@dataclass(frozen=True, slots=True)
class Images:
    """Names that Pods can use, with `imagePullPolicy: IfNotPresent`."""

    operator: str
    ray: str
    mlflow: str = "ghcr.io/mlflow/mlflow:v3.17.2"
    s3: str = "ghcr.io/versity/versitygw:v1.8.0"


@dataclass(frozen=True, slots=True)
class Loader:
    """Builds images and brings them to the cluster."""

    command: tuple[str, ...]
    base: str

    def load(self, name: str, context: Path, *options: str) -> str:
        """Builds and loads one image; returns its full name. Raises AssertionError with the builder's last words."""
        full = f"{PREFIX}-{name}:{TAG}"
        command = [*self.command, full, str(context), *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False)
        assert done.returncode == 0, f"{shlex.join(command)}:\n{(done.stderr or done.stdout)[-3000:]}"
        return full


def loader(env: Mapping[str, str] = os.environ) -> Loader | None:
    """The command of this environment, if it names one."""
    command = shlex.split(env.get(LOADER_ENV, ""))
    return Loader(tuple(command), env.get(BASE_ENV, "")) if command else None


def load_images(env: Mapping[str, str] = os.environ) -> Images:
    """The images of this working tree, or those that the environment names."""
    found = loader(env)
    if found is None:
        assert OPERATOR_ENV in env, f"{LOADER_ENV} names no command, and {OPERATOR_ENV} no image"
        assert RAY_ENV in env, f"{LOADER_ENV} names no command, and {RAY_ENV} no image"
        others = {field: env[name] for field, name in (("mlflow", MLFLOW_ENV), ("s3", S3_ENV)) if name in env}
        return Images(env[OPERATOR_ENV], env[RAY_ENV], **others)
    operator, ray = (("-f", str(ROOT / folder / "Dockerfile")) for folder in ("operator", "pipelines"))
    if not found.base:
        return Images(found.load("operator", ROOT, *operator), found.load("ray", ROOT, *ray))
    assert S3_ENV in env, f"{BASE_ENV} speaks of a cluster without a registry, and {S3_ENV} names no S3 server there"
    here = ROOT / "tests" / "cluster"
    base = ("--build-arg", f"BASE={found.load('base', here / 'base', '--build-arg', f'BASE={found.base}')}")
    return Images(
        operator=found.load("operator", ROOT, *operator, *base),
        ray=found.load("ray", ROOT, *ray, *base),
        mlflow=found.load("mlflow", ROOT / "requirements", "-f", str(here / "mlflow" / "Dockerfile"), *base),
        s3=found.load("s3", here / "s3", "--build-arg", f"SERVER={env[S3_ENV]}"),
    )
