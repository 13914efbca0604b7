"""The cluster as it would be: reads with the person's rights, and what the operator would write kept beside them.

The operator's own observations and decisions run on it, so that a plan cannot differ from what would happen.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import NoReturn

from drivetrain.api.documents import JSON, Document, documents, integer, labels_of, mapping, text
from drivetrain.api.errors import ForbiddenError, NotFoundError
from drivetrain.api.kinds import DEPLOYMENT, DRIVETRAIN_PROJECT, OWN_KINDS, TRAINING_RUN, Kind, Ref, ref_of
from drivetrain.api.v1alpha1.deployment import Deployment
from drivetrain.api.v1alpha1.project import DrivetrainProject
from drivetrain.api.v1alpha1.trainingrun import TrainingRun
from drivetrain.cli.reader import Reader, parsed
from drivetrain.controller.cluster.port import FIELD_MANAGER, ObjectList, Precondition, WatchEvent

MODELS: Mapping[Kind, type[DrivetrainProject] | type[TrainingRun] | type[Deployment]] = {
    DRIVETRAIN_PROJECT: DrivetrainProject,
    TRAINING_RUN: TrainingRun,
    DEPLOYMENT: Deployment,
}
_KUBECTL = (("kubectl", "Apply"), ("kubectl-client-side-apply", "Update"))
"""As whom `kubectl apply` owns the fields of a manifest, server-side and client-side."""
_OPERATOR = ((FIELD_MANAGER, "Apply"),)


@dataclass(slots=True)
class Overlay:
    """A `Cluster` that changes nothing."""

    reader: Reader
    now: datetime
    unread: list[str] = field(default_factory=list)
    """What the person may not read: the plan goes on as if it were not there."""
    _written: dict[Ref, Document | None] = field(default_factory=dict)
    _read: dict[Ref, Document | None] = field(default_factory=dict)
    _listed: dict[tuple[Kind, str, str], tuple[Document, ...]] = field(default_factory=dict)

    async def serves(self, kind: Kind) -> bool:
        """See Cluster.serves."""
        return self.reader.serves(kind)

    def live(self, ref: Ref) -> Document | None:
        """The object as it is stored now."""
        if ref not in self._read:
            try:
                self._read[ref] = self.reader.get(ref)
            except NotFoundError:
                self._read[ref] = None
            except ForbiddenError:
                self._note("get", ref.kind, ref.namespace)
                self._read[ref] = None
        return self._read[ref]

    async def get(self, ref: Ref) -> Document | None:
        """See Cluster.get."""
        return self._written[ref] if ref in self._written else self.live(ref)

    async def list(self, kind: Kind, namespace: str = "", labels: Mapping[str, str] | None = None) -> ObjectList:
        """See Cluster.list."""
        wanted = dict(labels or {})
        key = kind, namespace, ",".join(f"{name}={label}" for name, label in sorted(wanted.items()))
        if key not in self._listed:
            try:
                self._listed[key] = self.reader.list(kind, wanted or None, namespace=namespace)
            except ForbiddenError:
                self._note("list", kind, namespace)
                self._listed[key] = ()
            except NotFoundError:
                if kind not in OWN_KINDS:  # whether KubeRay and Kueue are there matters for what follows
                    raise
                self._listed[key] = ()
        found = {ref_of(each): each for each in self._listed[key]}
        for ref, document in self._written.items():
            fits = ref.kind == kind and namespace in ("", ref.namespace)
            if document is None:
                found.pop(ref, None)
            elif fits and wanted.items() <= labels_of(document).items():
                found[ref] = document
        return ObjectList(tuple(found.values()), "")

    async def apply(
        self, document: Document, *, field_manager: str = FIELD_MANAGER, expected: Precondition | None = None
    ) -> Document:
        """See Cluster.apply; what is not there yet is stated whole by whoever makes it."""
        ref = ref_of(document)
        before, live = await self.get(ref) or {}, self.live(ref)
        if live is None:
            return self.put({**before, **document})
        return self.put(patched(before, _patch(before, document, _owned(live, _OPERATOR))))

    def put(self, stored: Document) -> Document:
        """The object as it is stored from now on."""
        ref = ref_of(stored)
        before = (self._written[ref] if ref in self._written else self.live(ref)) or {}
        old = mapping(before, "metadata")
        changed = bool(before) and _spec(before) != _spec(stored)
        metadata: Document = {
            "creationTimestamp": self.now.isoformat(),
            **old,
            **mapping(stored, "metadata"),
            "uid": text(old, "uid") or f"planned-{ref.kind.plural}-{ref.name}",
            "generation": (integer(old, "generation") or 1) + (1 if changed else 0),
            "resourceVersion": f"{integer(old, 'generation')}",
        }
        written: Document = {**stored, "metadata": metadata}
        self._written[ref] = written
        return written

    async def dry_run(self, document: Document) -> Document:
        """The object as it is stated: a plan asks for nothing."""
        return document

    async def apply_status(
        self, document: Document, *, field_manager: str = FIELD_MANAGER, expected: Precondition | None = None
    ) -> Document:
        """See Cluster.apply_status."""
        ref = ref_of(document)
        stored: Document = {**(await self.get(ref) or {}), "status": document["status"]}
        self._written[ref] = stored
        return stored

    async def delete(self, ref: Ref, *, expected: Precondition | None = None) -> None:
        """See Cluster.delete."""
        self._written[ref] = None

    async def create_event(self, event: Document) -> None:
        """Nothing is told to anybody."""

    def watch(
        self, kind: Kind, namespace: str = "", labels: Mapping[str, str] | None = None, *, resource_version: str
    ) -> AbstractAsyncContextManager[AsyncIterator[WatchEvent]]:
        """Nothing happens in a plan: it is never watched."""
        self._never()

    def changed(self) -> Mapping[Ref, Document | None]:
        """What would be written, None for what would be deleted, in order."""
        return dict(self._written)

    def _note(self, verb: str, kind: Kind, namespace: str) -> None:
        told = f"you may not {verb} {kind.plural}" + (f" in namespace {namespace}" if kind.namespaced else "")
        if told not in self.unread:
            self.unread.append(told)

    def _never(self) -> NoReturn:
        raise AssertionError("a plan does not watch")


def kubectl_patch(live: Document, manifest: Document) -> Document:
    """What `kubectl apply` changes, as a JSON merge patch: what is stated, and null for what it wrote and is no more.

    Fields of other writers stay. It cannot foresee what another tool than kubectl applied and takes away, nor elements
    that others added to a list: the list is as the manifest states it.
    """
    return _patch(live, manifest, _owned(live, _KUBECTL))


def patched(before: Document, patch: Document) -> Document:
    """What a JSON merge patch (RFC 7386) makes of an object."""
    after = {key: part for key, part in before.items() if key not in patch}
    for key, part in patch.items():
        if part is not None:
            after[key] = patched(mapping(before, key), part) if isinstance(part, Mapping) else part
    return after


def _patch(before: Document, stated: Document, owned: Sequence[Document]) -> Document:
    """`stated` and null for what is `owned` (FieldsV1 notation) and not stated."""
    patch: dict[str, JSON] = {
        key: None for key in before if key not in stated and any(f"f:{key}" in each for each in owned)
    }
    for key, part in stated.items():
        below = [mapping(each, f"f:{key}") for each in owned]
        patch[key] = _patch(mapping(before, key), part, below) if isinstance(part, Mapping) else part
    return patch


def _owned(live: Document, managers: Sequence[tuple[str, str]]) -> tuple[Document, ...]:
    return tuple(
        mapping(entry, "fieldsV1")
        for entry in documents(live, "metadata", "managedFields")
        if (text(entry, "manager"), text(entry, "operation")) in managers and not text(entry, "subresource")
    )


def _spec(document: Document) -> object:
    """The spec to compare by: of ours as it is understood, since only one side may name defaults."""
    model = MODELS.get(ref_of(document).kind)
    return parsed(model, document).spec if model is not None else mapping(document, "spec")
