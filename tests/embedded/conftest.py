"""One environment for all embedded tests; what it leaves behind is checked at the end."""

import json
import shutil
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import monotonic, sleep
from typing import TypeVar

import pytest

from drivetrain.api.documents import Document, documents
from drivetrain.api.kinds import Kind, kind_of
from drivetrain.controller.cluster.access import from_kubeconfig
from drivetrain.local.environment import Addresses, down, logs, up
from drivetrain.local.processes import of_environment, sessions_of
from drivetrain.local.statedir import StateDir

T = TypeVar("T")
WITHOUT = frozenset[str]()


@dataclass(frozen=True, slots=True)
class Embedded:
    """A running environment, with kubectl's verbs for the namespace `default`."""

    state: StateDir
    addresses: Addresses

    def apply(self, document: Document) -> None:
        """Create or change an object, as `kubectl apply --server-side` does."""
        name = document["metadata"]["name"]  # type: ignore[index,call-overload]  # every object in a test has a name
        self._call("PATCH", f"{_path(kind_of(document))}/{name}?fieldManager=test&force=true", document)

    def get(self, kind: Kind, name: str) -> Document | None:
        """Return an object, or None."""
        try:
            return self._call("GET", f"{_path(kind)}/{name}")
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise

    def items(self, kind: Kind) -> tuple[Document, ...]:
        """Return all objects of a kind."""
        return documents(self._call("GET", _path(kind)), "items")

    def delete(self, kind: Kind, name: str) -> None:
        """Ask for the deletion of an object."""
        self._call("DELETE", f"{_path(kind)}/{name}")

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


def _path(kind: Kind) -> str:
    return f"{kind.path}/namespaces/default/{kind.plural}"


def until(seen: Callable[[], T], seconds: float, what: str) -> T:
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
