"""The operator that looks after a cluster, as far as the person may see it."""

from collections.abc import Mapping
from dataclasses import dataclass

from drivetrain.api.documents import Document, documents, integer, labels_of, name_of, namespace_of, text
from drivetrain.api.errors import ForbiddenError
from drivetrain.cli.foreign import APPS_DEPLOYMENT
from drivetrain.cli.reader import Reader
from drivetrain.controller.core.support import SUPPORTED_RAY
from drivetrain.controller.manifests.settings import API_PORTS, Settings, listed, ports

LABELS = {"app.kubernetes.io/part-of": "drivetrain", "app.kubernetes.io/component": "operator"}
UNKNOWN_IMAGE = "(the operator's default image)"
ASSUMED_RAY = f"{SUPPORTED_RAY[-1]}.0"
"""What an operator of this version renders where nothing else is said."""


@dataclass(frozen=True, slots=True)
class Installation:
    """The operator's Deployment, as the chart makes it."""

    name: str
    namespace: str
    version: str
    wanted: int
    ready: int
    settings: Settings
    namespaces: tuple[str, ...]
    """Those that it watches; empty: all."""


def find(reader: Reader) -> tuple[Installation, ...]:
    """The operators of the cluster. Raises ForbiddenError where the person may not list Deployments."""
    return tuple(installation(each) for each in reader.list(APPS_DEPLOYMENT, LABELS, namespace=""))


def installation(deployment: Document) -> Installation:
    """What an operator's Deployment says."""
    containers = documents(deployment, "spec", "template", "spec", "containers")
    environment = {
        text(each, "name"): text(each, "value") for container in containers for each in documents(container, "env")
    }
    return Installation(
        name=name_of(deployment),
        namespace=namespace_of(deployment),
        version=labels_of(deployment).get("app.kubernetes.io/version", ""),
        wanted=integer(deployment, "spec", "replicas"),
        ready=integer(deployment, "status", "readyReplicas"),
        settings=_settings(environment),
        namespaces=listed(environment.get("DRIVETRAIN_NAMESPACES", "")),
    )


def settings(reader: Reader, *, mlflow: str | None = None) -> tuple[Settings, str]:
    """The operator's defaults, and what is not known of them; `mlflow` where it is known already."""
    try:
        found = find(reader)
    except ForbiddenError:
        found = ()
    looking = [each for each in found if not each.namespaces or reader.namespace in each.namespaces]
    if looking:
        return looking[0].settings, ""
    unknown = "the operator's default image and Ray version: its Deployment cannot be read"
    return Settings(ray_image=UNKNOWN_IMAGE, ray_version=ASSUMED_RAY, mlflow_url=mlflow), unknown


def _settings(environment: Mapping[str, str]) -> Settings:
    answers = environment.get("DRIVETRAIN_API_SERVER_PORTS")  # an operator of an older chart is not told
    return Settings(
        ray_image=environment.get("DRIVETRAIN_RAY_IMAGE") or UNKNOWN_IMAGE,
        ray_version=environment.get("DRIVETRAIN_RAY_VERSION") or ASSUMED_RAY,
        mlflow_url=environment.get("DRIVETRAIN_MLFLOW_URL") or None,
        pull_secrets=listed(environment.get("DRIVETRAIN_RAY_PULL_SECRETS", "")),
        api_ports=ports(answers) if answers else API_PORTS,
    )
