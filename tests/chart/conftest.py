"""A real API server with the kinds that the chart meets, and three namespaces that enforce `restricted`."""

import pytest
import yaml

from drivetrain.api.documents import Document
from drivetrain.local.binaries import cache_folder, cached_files
from drivetrain.local.pins import CRDS, load
from tests.support.api_server import ApiServer
from tests.support.helm import NAMESPACE
from tests.support.rest import Rest, serve

ENABLED, OTHER = "team-a", "team-b"


def definitions(pin: str) -> tuple[Document, ...]:
    """Return pinned definitions that `make setup` has fetched."""
    folder = cached_files(load()[pin], cache_folder())
    if folder is None:
        pytest.fail(f"{pin} is not in the cache: run `make setup`")
    return tuple(yaml.load((folder / name).read_text(), yaml.CSafeLoader) for name, _ in load()[pin].files)


def a_namespace(name: str, **labels: str) -> Document:
    """A namespace that enforces Pod Security `restricted`, and warns of Pod templates that would break it."""
    enforced = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {**enforced, **labels}}}


@pytest.fixture(scope="module")
def rest(api_server: ApiServer) -> Rest:
    """An administrator's way in; KubeRay's and prometheus-operator's kinds are installed."""
    rest = Rest(api_server)
    for definition in (*definitions(CRDS), *definitions("prometheus-crds")):
        serve(rest, definition)
    for namespace in (
        a_namespace(NAMESPACE),
        a_namespace(ENABLED, **{"drivetrain.dev/enabled": "true"}),
        a_namespace(OTHER),
    ):
        assert rest.apply(namespace).status in (200, 201)
    return rest
