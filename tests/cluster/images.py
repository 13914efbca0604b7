"""The two images, built once per run and brought to the cluster by whatever command does that there.

`DRIVETRAIN_IMAGE_LOADER` is that command. It is called as `LOADER NAME CONTEXT OPTION...`, with the options of `docker
build` (`-f`, `--build-arg`), and ends once every node can start NAME. For kind, for instance:

    #!/bin/sh -e
    name=$1 context=$2; shift 2
    docker build -t "$name" "$@" "$context" && kind load docker-image "$name"

Without it, `DRIVETRAIN_OPERATOR_IMAGE` and `DRIVETRAIN_RAY_IMAGE` name images that the cluster can pull.
`DRIVETRAIN_IMAGE_BASE` replaces the production base; what that one lacks is removed from it first.
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
PREFIX = "localhost/drivetrain"
TAG = "test"
BUILD_SECONDS = 900


@dataclass(frozen=True, slots=True)
class Images:
    """Names that Pods can use, with `imagePullPolicy: IfNotPresent`."""

    operator: str
    ray: str


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
        return Images(env[OPERATOR_ENV], env[RAY_ENV])
    options: tuple[str, ...] = ()
    if found.base:
        base = found.load("base", ROOT / "tests" / "cluster" / "base", "--build-arg", f"BASE={found.base}")
        options = ("--build-arg", f"BASE={base}")
    return Images(
        operator=found.load("operator", ROOT, "-f", str(ROOT / "operator" / "Dockerfile"), *options),
        ray=found.load("ray", ROOT, "-f", str(ROOT / "pipelines" / "Dockerfile"), *options),
    )
