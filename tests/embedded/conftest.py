"""One environment for all embedded tests; what it leaves behind is checked at the end."""

import json
import shutil
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from time import monotonic, sleep
from typing import Any, TypeVar

import boto3
import pytest

from drivetrain.api.documents import Document, documents, labels_of, name_of
from drivetrain.api.kinds import (
    CONFIG_MAP,
    NETWORK_POLICY,
    OWN_KINDS,
    POD,
    RAY_CLUSTER,
    RAY_JOB,
    RAY_SERVICE,
    ROLE,
    ROLE_BINDING,
    SERVICE,
    SERVICE_ACCOUNT,
    Kind,
    kind_of,
)
from drivetrain.api.names import MANAGED_BY, MANAGED_BY_LABEL
from drivetrain.controller.cluster.access import from_kubeconfig
from drivetrain.local.environment import Addresses, down, logs, up
from drivetrain.local.processes import of_environment, sessions_of
from drivetrain.local.statedir import StateDir

T = TypeVar("T")
WITHOUT = frozenset[str]()


@dataclass(frozen=True, slots=True)
class Embedded:
    """A running environment, with kubectl's verbs for one namespace."""

    state: StateDir
    addresses: Addresses
    namespace: str = "default"

    def within(self, namespace: str) -> "Embedded":
        """Return the same for a namespace of its own, which is made, with the Secret that opens the S3 server."""
        other = replace(self, namespace=namespace)
        other.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        secret = self.addresses
        other.apply_secret(
            secret.s3_secret, AWS_ACCESS_KEY_ID=secret.s3_access_key, AWS_SECRET_ACCESS_KEY=secret.s3_secret_key
        )
        return other

    def apply_secret(self, name: str, **keys: str) -> None:
        """Create or change a Secret."""
        self.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": dict(keys)})

    def apply(self, document: Document) -> None:
        """Create or change an object, as `kubectl apply --server-side` does."""
        name = document["metadata"]["name"]  # type: ignore[index,call-overload]  # every object in a test has a name
        self._call("PATCH", f"{self._path(kind_of(document))}/{name}?fieldManager=test&force=true", document)

    def get(self, kind: Kind, name: str) -> Document | None:
        """Return an object, or None."""
        try:
            return self._call("GET", f"{self._path(kind)}/{name}")
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise

    def items(self, kind: Kind) -> tuple[Document, ...]:
        """Return all objects of a kind."""
        return documents(self._call("GET", self._path(kind)), "items")

    def delete(self, kind: Kind, name: str) -> None:
        """Ask for the deletion of an object."""
        self._call("DELETE", f"{self._path(kind)}/{name}")

    def stalled(self, kind: Kind, name: str) -> Document | None:
        """Return an object with its Stalled condition in force, or None."""
        found = self.get(kind, name)
        return found if found is not None and condition_in_force(found, "Stalled") else None

    def managed(self) -> list[str]:
        """Return what Drivetrain made, and what was made for that, by kind and name."""
        kinds = (*MANAGED_KINDS, POD, RAY_CLUSTER)
        return [
            f"{kind.kind}/{name_of(found)}"
            for kind in kinds
            for found in self.items(kind)
            if kind in (POD, RAY_CLUSTER) or labels_of(found).get(MANAGED_BY_LABEL) == MANAGED_BY
        ]

    def s3(self) -> Any:
        """Return a client of the S3 server."""
        return boto3.client(
            "s3",
            endpoint_url=self.addresses.s3,
            aws_access_key_id=self.addresses.s3_access_key,
            aws_secret_access_key=self.addresses.s3_secret_key,
            region_name="us-east-1",
        )

    def _call(self, method: str, path: str, body: Document | None = None) -> Document:
        access = from_kubeconfig(self.addresses.kubeconfig)
        headers = {"Authorization": f"Bearer {access.token()}", "Content-Type": "application/apply-patch+yaml"}
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(access.server + path, content, headers, method=method)
        assert isinstance(access.tls, ssl.SSLContext)
        with urllib.request.urlopen(request, context=access.tls, timeout=30) as response:
            found = json.load(response)
        assert isinstance(found, dict)
        return found

    def _path(self, kind: Kind) -> str:
        within = f"/namespaces/{self.namespace}" if kind.namespaced else ""
        return f"{kind.path}{within}/{kind.plural}"


MANAGED_KINDS = (
    *OWN_KINDS,
    *(RAY_JOB, RAY_SERVICE, CONFIG_MAP, SERVICE, SERVICE_ACCOUNT, ROLE, ROLE_BINDING, NETWORK_POLICY),
)


def condition_in_force(found: Document, type_: str) -> Document | None:
    """Return the condition of that type if it is true."""
    stated = documents(found, "status", "conditions")
    return next((each for each in stated if (each["type"], each["status"]) == (type_, "True")), None)


def until(seen: Callable[[], T | None], seconds: float, what: str) -> T:
    """Return the first true value of `seen`, or fail when it stays false for so long."""
    deadline = monotonic() + seconds
    while not (found := seen()):
        assert monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        sleep(0.25)
    return found


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    state = StateDir(tmp_path_factory.mktemp("embedded"))
    try:
        yield Embedded(state, up(state, _say, without=WITHOUT))
    except BaseException:
        for component in ("supervisor", "agent", "operator"):
            if state.log(component).exists():
                sys.stderr.write("\n".join((f"== {component}", *logs(state, component, lines=40), "")))
        raise
    finally:
        sessions = sessions_of(of_environment(state.root))
        down(state, lambda component, text: None)
        assert of_environment(state.root, sessions=sessions) == ()
        shutil.rmtree(state.sockets, ignore_errors=True)


def _say(component: str, text: str) -> None:
    sys.stderr.write(f"{component}: {text}\n")
