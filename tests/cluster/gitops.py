"""Plays Argo CD: applies what Git holds, server-side, every few seconds, and keeps what did not go as it should."""

import json
import threading
from collections.abc import Sequence
from types import TracebackType

from drivetrain.api.documents import Document, annotations_of, documents, integer, name_of, text
from tests.cluster.kubectl import Kubectl, KubectlError

MANAGER = "argocd-controller"
TRACKING = "argocd.argoproj.io/tracking-id"
EVERY_SECONDS = 3.0


class Player:
    """A context in which what was last committed is applied again and again."""

    def __init__(self, kubectl: Kubectl) -> None:
        self._kubectl = kubectl
        self._manifests: Sequence[Document] = ()
        self._generations: dict[str, int] = {}
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._play, daemon=True)
        self.rounds = 0
        """How often everything was applied."""
        self.findings: list[str] = []
        """Fields that somebody else wants, and specs that changed although Git did not."""

    def commit(self, *manifests: Document) -> None:
        """Puts these in the place of what Git held, and takes over what a person applied. Fails where it cannot."""
        with self._lock:
            self._manifests = [_tracked(each) for each in manifests]
            self._generations = {}
            self._apply("--force-conflicts")

    def difference(self) -> str:
        """What `kubectl diff` finds between Git and the cluster; nothing where they agree."""
        with self._lock:
            try:
                return self._kubectl(*self._options("diff"), content=self._content())
            except KubectlError as error:  # a difference is told by the exit code
                return str(error)

    def __enter__(self) -> "Player":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _play(self) -> None:
        while not self._over.wait(EVERY_SECONDS):
            with self._lock:
                try:
                    self._apply()
                except KubectlError as error:
                    self.findings.append(str(error))
            self.rounds += 1

    def _apply(self, *options: str) -> None:
        """Without --force-conflicts whoever else took a field of Git's meanwhile is found."""
        if not self._manifests:
            return
        told = json.loads(self._kubectl(*self._options("apply"), *options, "-o", "json", content=self._content()))
        for found in documents(told, "items") or (told,):
            name = f"{text(found, 'kind')}/{name_of(found)}"
            generation = integer(found, "metadata", "generation")
            known = self._generations.setdefault(name, generation)
            if generation != known:
                self.findings.append(f"{name} went from generation {known} to {generation}, and Git did not change")
                self._generations[name] = generation

    def _options(self, verb: str) -> tuple[str, ...]:
        return (verb, "--server-side", f"--field-manager={MANAGER}", "-f", "-")

    def _content(self) -> str:
        return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(self._manifests)})


def _tracked(manifest: Document) -> Document:
    """With the mark by which Argo CD knows what it applied, and prunes what is not in Git."""
    metadata = manifest["metadata"]
    assert isinstance(metadata, dict)
    mark = {TRACKING: f"team-a:{text(manifest, 'kind')}/{name_of(manifest)}"}
    return {**manifest, "metadata": {**metadata, "annotations": {**annotations_of(manifest), **mark}}}
