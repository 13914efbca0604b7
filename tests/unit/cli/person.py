"""A person's session on a fake cluster: with objects of other people's kinds, and with rights that may be missing."""

import copy
from collections.abc import Mapping, Sequence

from drivetrain.api.documents import JSON, Document, labels_of, mapping, name_of, namespace_of, text
from drivetrain.api.errors import ForbiddenError, NotFoundError, RejectedError, UnavailableError
from drivetrain.api.kinds import EVENT, KINDS, PENDING_WORKLOADS, Kind, Ref, ref_of
from tests.support.bench import NAMESPACE, Bench
from tests.support.defaults import defaulted
from tests.support.fake_cluster import FakeCluster
from tests.support.operator_world import finish


class Person:
    """Reads a fake cluster and, beside it, what the operator has no business with: nodes, queues, Secrets."""

    namespace = NAMESPACE

    def __init__(
        self,
        bench: Bench | FakeCluster | None = None,
        *,
        others: Mapping[Kind, Sequence[Document]] | None = None,
        denied: Sequence[Kind | str] = (),
        down: Sequence[Kind] = (),
        refuses: str = "",
    ) -> None:
        self._cluster = bench.cluster if isinstance(bench, Bench) else bench or FakeCluster()
        self._others = dict(others or {})
        self._denied = frozenset(denied)
        self._down = frozenset(down)
        self._refuses = refuses
        self.tried: list[Document] = []

    def get(self, ref: Ref) -> Document | None:
        self._check("get", ref.kind, ref.namespace)
        if ref.kind in KINDS:
            return self._cluster.read(ref)
        found = self._others.get(ref.kind, ())
        return next((each for each in found if (namespace_of(each), name_of(each)) == (ref.namespace, ref.name)), None)

    def list(
        self, kind: Kind, labels: Mapping[str, str] | None = None, *, namespace: str | None = None
    ) -> tuple[Document, ...]:
        self._check("list", kind, namespace or "")
        if kind in KINDS:
            return self._cluster.find(kind, self.namespace if namespace is None else namespace, labels)
        if kind not in self._others:
            raise NotFoundError("unknown", kind=kind.kind, namespace="", name="", status=404)
        wanted = dict(labels or {}).items()
        return tuple(each for each in self._others[kind] if wanted <= labels_of(each).items())

    def serves(self, kind: Kind) -> bool:
        if kind == PENDING_WORKLOADS:  # the only one whose discovery is its own server's
            self._check("discover", kind, "")
        return kind in KINDS or kind in self._others

    def events(self, namespace: str, uid: str) -> tuple[Document, ...]:
        self._check("list", EVENT, namespace)
        found = self._cluster.find(EVENT, namespace, None)
        return tuple(each for each in found if text(each, "regarding", "uid") == uid)

    def annotate(self, ref: Ref, annotation: str, value: str | None) -> Document:
        live = self._cluster.read(ref)
        assert live is not None
        kept: dict[str, JSON] = {**mapping(live, "metadata", "annotations")}
        kept.pop(annotation, None)
        if value is not None:
            kept[annotation] = value
        self._cluster.put({**live, "metadata": {**mapping(live, "metadata"), "annotations": kept}})
        return live

    def apply(self, document: Document, *, dry_run: bool = False) -> Document:
        self._try(document, dry_run=dry_run)
        return defaulted(finish(copy.deepcopy(self._cluster).apply(document, field_manager="drivetrain-cli")))

    def amend(self, patch: Document, *, dry_run: bool = False) -> Document:
        self._try(patch, dry_run=dry_run)
        live = self._cluster.read(ref_of(patch))
        assert live is not None
        after = defaulted(_merged(live, patch))
        return copy.deepcopy(self._cluster).put(after)

    def _try(self, document: Document, *, dry_run: bool) -> None:
        assert dry_run, "nothing is applied by looking"
        self.tried.append(document)
        if self._refuses:
            raise RejectedError(self._refuses, kind="", namespace="", name="", status=422)
        if "patch" in self._denied:
            raise ForbiddenError("may not patch", kind="", namespace="", name="", status=403)

    def _check(self, verb: str, kind: Kind, namespace: str) -> None:
        if kind in self._denied:
            raise ForbiddenError(f"may not {verb}", kind=kind.kind, namespace=namespace, name="", status=403)
        if kind in self._down:
            raise UnavailableError("its server is down", kind=kind.kind, namespace=namespace, name="", status=503)


def _merged(live: Document, patch: Document) -> Document:
    """What the API server makes of a merge patch."""
    kept = {key: part for key, part in live.items() if key not in patch}
    given = {key: part for key, part in patch.items() if part is not None}
    return kept | {
        key: _merged(mapping(live, key), part) if isinstance(part, Mapping) else part for key, part in given.items()
    }
