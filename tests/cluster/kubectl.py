"""kubectl for one namespace of the cluster that KUBECONFIG names, and waiting with a deadline."""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from time import monotonic, sleep
from typing import TypeVar

from drivetrain.api.documents import Document, documents
from drivetrain.api.kinds import Kind

T = TypeVar("T")

GONE_SECONDS = 300


class KubectlError(AssertionError):
    """kubectl refused; the message is what it said."""


@dataclass(frozen=True, slots=True)
class Kubectl:
    """A person at the command line, in one namespace."""

    namespace: str = "default"

    def within(self, namespace: str) -> "Kubectl":
        """The same person in another namespace."""
        return replace(self, namespace=namespace)

    def __call__(self, *arguments: str, content: str | None = None, seconds: float = 60) -> str:
        """Runs a command and returns what it printed. Raises KubectlError."""
        command = ["kubectl", "-n", self.namespace, *arguments]
        done = subprocess.run(command, input=content, capture_output=True, text=True, timeout=seconds, check=False)
        if done.returncode:
            raise KubectlError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def apply(self, *manifests: Document, dry_run: bool = False) -> None:
        """Creates or changes objects, server-side."""
        arguments = ["apply", "--server-side", "--force-conflicts", "-f", "-"]
        arguments += ["--dry-run=server"] if dry_run else []
        self(*arguments, content=json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests}))

    def create(self, manifest: Document, *, dry_run: bool = False) -> Document:
        """Creates an object and returns it as the API server would keep it."""
        arguments = ["create", "-o", "json", "-f", "-", *(["--dry-run=server"] if dry_run else [])]
        return _document(self(*arguments, content=json.dumps(manifest)))

    def get(self, kind: Kind, name: str) -> Document | None:
        """An object, or None."""
        found = self("get", _resource(kind), name, "-o", "json", "--ignore-not-found")
        return _document(found) if found else None

    def items(self, kind: Kind, labels: Mapping[str, str] | None = None) -> tuple[Document, ...]:
        """All objects of a kind, or those with these labels."""
        selector = ",".join(f"{name}={value}" for name, value in (labels or {}).items())
        return documents(_document(self("get", _resource(kind), "-l", selector, "-o", "json")), "items")

    def patch(self, kind: Kind, name: str, change: Document) -> None:
        """Merges a change into an object."""
        self("patch", _resource(kind), name, "--type=merge", "-p", json.dumps(change))

    def delete(self, kind: Kind, name: str, *, seconds: float = 120) -> None:
        """Deletes an object and waits until it is gone."""
        self("delete", _resource(kind), name, "--ignore-not-found", f"--timeout={seconds:.0f}s", seconds=seconds + 10)

    def logs(self, pod: str, *arguments: str) -> str:
        """What a Pod has written so far."""
        return self("logs", pod, *arguments)


def until(seen: Callable[[], T | None], seconds: float, what: str) -> T:
    """The first true value of `seen`; fails when it stays false for so long."""
    deadline = monotonic() + seconds
    while not (found := seen()):
        assert monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        sleep(1)  # one look costs kubectl a tenth of a CPU second
    return found


def delete_namespaces(cluster: Kubectl, names: Sequence[str]) -> None:
    """Deletes namespaces side by side and waits until they are gone."""
    for name in names:
        cluster("delete", "namespace", name, "--ignore-not-found", "--wait=false")
    for name in names:
        told = f"--timeout={GONE_SECONDS}s"
        cluster("wait", "--for=delete", f"namespace/{name}", told, seconds=GONE_SECONDS + 10)


def tell(kubectl: Kubectl, *more: tuple[str, ...], everywhere: bool = False) -> None:
    """What a person would look at first, in the namespace or everywhere, and what `more` commands show."""
    where = ("--all-namespaces",) if everywhere else ()
    try:
        failed = kubectl("get", "pods", "--field-selector=status.phase=Failed", "-o", "name").split()
    except KubectlError:  # the commands that follow say why
        failed = []
    for command in (
        ("get", "dtp,dtr,dtd,rayjobs,rayclusters,rayservices,workloads,pods,services", "-o", "wide", *where),
        ("get", "events", "--sort-by=.lastTimestamp", *where),
        *(("logs", pod, "--all-containers", "--tail=40") for pod in failed),
        *more,
    ):
        try:
            told = kubectl(*command)
        except KubectlError as error:  # a kind that is not installed must not hide the rest
            told = str(error)
        sys.stderr.write(f"== {kubectl.namespace}: kubectl {' '.join(command)}\n{told[-20_000:]}\n")


def _resource(kind: Kind) -> str:
    return f"{kind.plural}.{kind.version}.{kind.group}" if kind.group else kind.plural


def _document(text: str) -> Document:
    found = json.loads(text)
    assert isinstance(found, dict)
    return found
