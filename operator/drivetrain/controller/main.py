"""`drivetrain-operator`: the wiring of the operator process."""

import argparse
import asyncio
import logging
import os
import platform
import secrets
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from drivetrain.api.errors import DrivetrainError
from drivetrain.api.kinds import WORKLOAD, WORKLOAD_V1BETA1
from drivetrain.controller.cluster.access import from_kubeconfig, in_cluster
from drivetrain.controller.cluster.observation import Deployments, Projects, TrainingRuns
from drivetrain.controller.cluster.port import Cluster
from drivetrain.controller.handlers.process import Options, run
from drivetrain.controller.handlers.runtime import Bound, bind
from drivetrain.controller.manifests.settings import API_PORTS, Settings, listed, ports

RAY_VERSION = "2.60.0"

_log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the operator until it is asked to end (0) or should be started again (1)."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)  # one line for every event otherwise
    parsed = parser_for(os.environ).parse_args(arguments)
    try:
        asyncio.run(run(options_of(parsed), Controllers(settings_of(parsed)), wanted=Controllers.wanted))
    except DrivetrainError as error:
        _log.error("%s", error)
        return 1
    return 0


class Controllers:
    """The three controllers, set up for what is installed."""

    wanted = (WORKLOAD, WORKLOAD_V1BETA1)
    """Kueue is optional: its Workloads are not watched where it is not there, but its arrival matters."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    async def __call__(self, cluster: Cluster) -> Sequence[Bound]:
        """Return the controllers; Workloads are read in the newest version that Kueue serves here."""
        served = [kind for kind in self.wanted if await cluster.serves(kind)]
        return (
            bind(Projects(self.settings)),
            bind(TrainingRuns(self.settings, served[0] if served else None)),
            bind(Deployments(self.settings)),
        )


def parser_for(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    """Return the command line; the default of each flag is an environment variable, which is what a Pod sets."""
    parser = argparse.ArgumentParser(prog="drivetrain-operator", description="The operator of Drivetrain.")

    def flag(name: str, variable: str, default: str, text: str, kind: Callable[[str], object] = str) -> None:
        shown = f"{text} [{variable}]" + (f" (default: {default})" if default else "")
        parser.add_argument(name, default=environment.get(variable, default), type=kind, help=shown)

    flag("--kubeconfig", "KUBECONFIG", "", "how to reach the API server; without it the Pod's ServiceAccount")
    flag("--namespaces", "DRIVETRAIN_NAMESPACES", "", "comma-separated namespaces to watch; none: all")
    flag("--mlflow-url", "DRIVETRAIN_MLFLOW_URL", "", "MLflow of projects that name no tracking server")
    flag("--ray-image", "DRIVETRAIN_RAY_IMAGE", "", "image of Ray pods whose spec names none")
    flag(
        "--ray-pull-secrets",
        "DRIVETRAIN_RAY_PULL_SECRETS",
        "",
        "comma-separated Secrets, to be found in every namespace, for the registries of Ray images",
    )
    flag("--ray-version", "DRIVETRAIN_RAY_VERSION", RAY_VERSION, "Ray's version in that image")
    flag(
        "--api-server-ports",
        "DRIVETRAIN_API_SERVER_PORTS",
        ",".join(map(str, API_PORTS)),
        "comma-separated ports on which the API server answers Pods of runs and endpoints",
        ports,
    )
    flag("--metrics-host", "DRIVETRAIN_HTTP_HOST", "0.0.0.0", "address of probes and metrics")  # noqa: S104 - kubelet and Prometheus call from outside the Pod
    flag("--metrics-port", "DRIVETRAIN_HTTP_PORT", "8080", "port of probes and metrics", int)
    flag("--lease-namespace", "DRIVETRAIN_LEASE_NAMESPACE", "", "where the Lease lies; without it the own namespace")
    flag(
        "--identity", "DRIVETRAIN_IDENTITY", "", "name in the Lease, different for every process; without it a new one"
    )
    return parser


def options_of(parsed: argparse.Namespace) -> Options:
    """Return how the process is set up.

    Raises:
        ComponentError: no API server is known, or the kubeconfig cannot be used.
    """
    access = from_kubeconfig(Path(parsed.kubeconfig)) if parsed.kubeconfig else in_cluster()
    return Options(
        access=access,
        namespaces=listed(parsed.namespaces),
        lease_namespace=parsed.lease_namespace or access.namespace,
        # A killed process must not be taken for its successor, or it would write under the successor's lease.
        identity=parsed.identity or f"{socket.gethostname()}-{secrets.token_hex(4)}",
        host=parsed.metrics_host,
        port=parsed.metrics_port,
    )


def settings_of(parsed: argparse.Namespace) -> Settings:
    """Return the defaults for what specs leave open."""
    return Settings(
        ray_image=parsed.ray_image,
        ray_version=parsed.ray_version,
        mlflow_url=parsed.mlflow_url or None,
        # Both images are built from one release, with one Python.
        python_version=".".join(platform.python_version_tuple()[:2]),
        pull_secrets=listed(parsed.ray_pull_secrets),
        api_ports=parsed.api_server_ports,
    )


if __name__ == "__main__":
    sys.exit(main())
