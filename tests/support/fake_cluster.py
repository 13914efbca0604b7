"""An in-memory API server that passes the contract tests of the real adapter, with hooks for every fault.

Versions, uids, generations, server-side apply with ownership, the status subresource, conflicts, preconditions, watch
history with compaction, label selectors and owner garbage collection (an explicit step). Objects are copied on the way
in and out. Objects never change by themselves: time and other controllers are the test's.
"""

import asyncio
import re
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeVar

import orjson

from drivetrain.api import errors
from drivetrain.api.documents import (
    JSON,
    Document,
    documents,
    labels_of,
    mapping,
    resource_version_of,
    sequence,
    text,
    uid_of,
    value,
)
from drivetrain.api.kinds import EVENT, KINDS, QUEUE_KINDS, Kind, Ref, ref_of
from drivetrain.controller.cluster.port import (
    FIELD_MANAGER,
    ObjectList,
    Precondition,
    WatchEvent,
    without_empty_maps,
)
from tests.support.faults import Crash, Faults, NoFaults, Struck
from tests.support.field_sets import FieldSet, as_fields_v1, fields_of, remove_field, set_field

__all__ = ["Crash", "FakeCluster", "Write"]

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_SUBRESOURCE_GROUPS = ("drivetrain.dev", "ray.io", "kueue.x-k8s.io", "tests.drivetrain.dev")
"""Groups whose objects have a generation and a status that only the subresource writes."""

E = TypeVar("E", bound=errors.ClusterError)


@dataclass(frozen=True, slots=True)
class Write:
    """One write that changed something, as the audit log would tell it."""

    verb: str
    ref: Ref
    manager: str
    resource_version: int


@dataclass(frozen=True, slots=True)
class _Stored:
    """One version of an object; `body` is JSON, so nobody can share it. None: deleted at this version."""

    version: int
    body: bytes | None
    owners: Mapping[tuple[str, str, str], FieldSet] = field(default_factory=dict)
    """(manager, operation, subresource) to the fields that it owns."""
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Change:
    version: int
    ref: Ref
    before: bytes | None
    after: bytes | None
    last: bytes
    """The object to show: the new one, or of a deletion the last with the deletion's version."""


class FakeCluster:
    """An in-memory `Cluster`. Methods without `await` are the hands of the test: users, controllers, time."""

    def __init__(
        self,
        *,
        faults: Faults | None = None,
        now: Callable[[], datetime] = lambda: datetime(2026, 1, 1, tzinfo=UTC),
        kinds: Sequence[Kind] = (*KINDS, *QUEUE_KINDS),
    ) -> None:
        self.faults: Faults = faults or NoFaults()
        self.writes: list[Write] = []
        self.requests: list[tuple[str, Ref]] = []
        self.admission: Callable[[Document], Document] = lambda document: document
        """What webhooks make of a new object, as far as dry runs tell."""
        self._now = now
        self._kinds = set(kinds)
        self._version = 1
        self._uids = 0
        self._compacted = 1
        self._objects: dict[Kind, dict[Ref, list[_Stored]]] = {}
        self._history: list[_Change] = []
        self._changed = asyncio.Event()

    # The Cluster protocol

    async def serves(self, kind: Kind) -> bool:
        """See Cluster.serves."""
        return kind in self._kinds

    async def get(self, ref: Ref) -> Document | None:
        """See Cluster.get."""
        self._serve("get", ref)
        return self._at(ref, self._version - self.faults.staleness("get", ref.kind))

    async def list(self, kind: Kind, namespace: str = "", labels: Mapping[str, str] | None = None) -> ObjectList:
        """See Cluster.list."""
        self._serve("list", Ref(kind, namespace, ""))
        version = max(self._version - self.faults.staleness("list", kind), 1)
        return ObjectList(self._find(kind, namespace, labels, version), str(version))

    @asynccontextmanager
    async def watch(
        self, kind: Kind, namespace: str = "", labels: Mapping[str, str] | None = None, *, resource_version: str
    ) -> AsyncIterator[AsyncIterator[WatchEvent]]:
        """See Cluster.watch."""
        self._serve("watch", Ref(kind, namespace, ""))
        yield self._watch(kind, namespace, labels or {}, int(resource_version))

    async def _watch(
        self, kind: Kind, namespace: str, labels: Mapping[str, str], after: int
    ) -> AsyncIterator[WatchEvent]:
        while True:
            if after < self._compacted:
                raise _error(errors.ConflictError, Ref(kind, namespace, ""), 410, "too old resource version")
            changed = self._changed
            for change in self._after(after):
                after = change.version
                for event in _seen(change, kind, namespace, labels):
                    for delivered in self.faults.deliver(event):
                        yield delivered
            await changed.wait()

    async def apply(
        self, document: Document, *, field_manager: str = FIELD_MANAGER, expected: Precondition | None = None
    ) -> Document:
        """See Cluster.apply."""
        ref = ref_of(document)
        with self._write("patch", ref):
            stated = {key: part for key, part in document.items() if key != "status" or not _has_status(ref)}
            return self._apply(ref, stated, "", field_manager, expected)

    async def dry_run(self, document: Document) -> Document:
        """See Cluster.dry_run."""
        self._serve("patch", ref_of(document))
        return self.admission(document)

    async def apply_status(
        self, document: Document, *, field_manager: str = FIELD_MANAGER, expected: Precondition | None = None
    ) -> Document:
        """See Cluster.apply_status."""
        ref = ref_of(document)
        with self._write("patch", ref):
            if self._current(ref) is None:
                raise _error(errors.NotFoundError, ref, 404, "not found")
            return self._apply(
                ref, {"status": without_empty_maps(document["status"])}, "status", field_manager, expected
            )

    async def delete(self, ref: Ref, *, expected: Precondition | None = None) -> None:
        """See Cluster.delete."""
        with self._write("delete", ref):
            stored = self._current(ref)
            if stored is not None:
                self._check(ref, stored, expected)
                self._delete(ref, FIELD_MANAGER)

    async def create_event(self, event: Document) -> None:
        """See Cluster.create_event."""
        namespace, name = text(event, "metadata", "namespace"), text(event, "metadata", "name")
        ref = Ref(EVENT, namespace, name)
        with self._write("create", ref):
            if self._current(ref) is None:
                self._store(ref, dict(event), {}, "create", FIELD_MANAGER)

    # The hands of the test

    def read(self, ref: Ref) -> Document | None:
        """Return the object as it is stored now, without faults."""
        return self._at(ref, self._version)

    def find(self, kind: Kind, namespace: str = "", labels: Mapping[str, str] | None = None) -> tuple[Document, ...]:
        """Return all objects of a kind as they are stored now, ordered by name, without faults."""
        return self._find(kind, namespace, labels, self._version)

    def everything(self) -> tuple[Document, ...]:
        """Return every stored object, ordered by kind and name."""
        return tuple(each for kind in sorted(self._objects) for each in self.find(kind))

    def put(self, document: Document, manager: str = "kubectl") -> Document:
        """Create or replace an object as a user or another controller does; its status only where it has no
        subresource. Fields whose value changes leave the managers that applied them."""
        return self._replace(document, manager, status=False)

    def put_status(self, document: Document, manager: str = "kubectl") -> Document:
        """Replace the status of an existing object as another controller does."""
        return self._replace(document, manager, status=True)

    def remove(self, ref: Ref, manager: str = "kubectl") -> None:
        """Delete an object as a user does; one with finalizers stays, marked, until `put` takes the last away."""
        if self._current(ref) is None:
            raise KeyError(ref)
        self._delete(ref, manager)

    def install(self, kind: Kind) -> None:
        """Serve a kind from now on, as after the creation of its definition."""
        self._kinds.add(kind)

    def collect_garbage(self) -> int:
        """Delete all objects whose owners are all gone, as the garbage collector does in time; return how many."""
        collected = 0
        while True:
            present = self.everything()
            uids = {uid_of(each) for each in present}
            orphans = [
                ref_of(each)
                for each in present
                if (owners := documents(each, "metadata", "ownerReferences"))
                and not any(text(owner, "uid") in uids for owner in owners)
                and not text(each, "metadata", "deletionTimestamp")
            ]
            if not orphans:
                return collected
            for ref in orphans:
                self._delete(ref, "garbage-collector")
            collected += len(orphans)

    def compact(self) -> None:
        """Forget the watch history: who continues an older watch gets a 410."""
        self._compacted = self._version
        self._history.clear()
        self._wake()

    def changes_after(self, resource_version: int, kind: Kind) -> tuple[WatchEvent, ...]:
        """Return the events of a kind after a version, without waiting and without faults."""
        return tuple(event for change in self._after(resource_version) for event in _seen(change, kind, "", {}))

    @property
    def resource_version(self) -> int:
        """The version of the last change."""
        return self._version

    # How it works

    def _serve(self, verb: str, ref: Ref) -> None:
        self.requests.append((verb, ref))
        if ref.kind not in self._kinds:
            raise _error(errors.NotFoundError, ref, 404, "the server could not find the requested resource")

    def _write(self, verb: str, ref: Ref) -> Struck:
        self._serve(verb, ref)
        return Struck(self.faults, verb, ref)

    def _after(self, version: int) -> Sequence[_Change]:
        return self._history[bisect_right(self._history, version, key=lambda change: change.version) :]

    def _current(self, ref: Ref) -> _Stored | None:
        versions = self._objects.get(ref.kind, {}).get(ref)
        return versions[-1] if versions and versions[-1].body is not None else None

    def _version_of(self, ref: Ref, version: int) -> _Stored | None:
        for stored in reversed(self._objects.get(ref.kind, {}).get(ref, ())):
            if stored.version <= version:
                return stored
        return None

    def _at(self, ref: Ref, version: int) -> Document | None:
        stored = self._version_of(ref, version)
        return None if stored is None else _load(stored.body)

    def _find(self, kind: Kind, namespace: str, labels: Mapping[str, str] | None, version: int) -> tuple[Document, ...]:
        wanted = (labels or {}).items()
        found = (
            stored.body
            for ref in sorted(self._objects.get(kind, ()), key=lambda ref: (ref.namespace, ref.name))
            if namespace in ("", ref.namespace)
            and (stored := self._version_of(ref, version)) is not None
            and wanted <= stored.labels.items()
        )
        return tuple(document for body in found if (document := _load(body)) is not None)

    def _check(self, ref: Ref, stored: _Stored | None, expected: Precondition | None) -> None:
        if expected is None:
            return
        if stored is None:
            if expected.uid:
                raise _error(errors.ConflictError, ref, 409, "uid mismatch: no existing object was found")
            return
        document = _load(stored.body) or {}
        version = expected.resource_version
        if version and version != resource_version_of(document):
            raise _error(errors.ConflictError, ref, 409, "the object has been modified")
        if expected.uid and expected.uid != uid_of(document):
            raise _error(errors.ConflictError, ref, 409, "the UID in the precondition does not match")

    def _apply(
        self, ref: Ref, document: Document, subresource: str, manager: str, expected: Precondition | None
    ) -> Document:
        if not _NAME.fullmatch(ref.name) or len(ref.name) > 253:
            raise _error(errors.RejectedError, ref, 422, f"metadata.name: Invalid value: {ref.name!r}")
        stored = self._current(ref)
        self._check(ref, stored, expected)
        intent = orjson.loads(orjson.dumps(document))
        fields = fields_of(intent)
        me = (manager, "Apply", subresource)
        owners = dict(stored.owners) if stored else {}
        merged: dict[str, JSON] = {"apiVersion": ref.kind.api_version, "kind": ref.kind.kind}
        if stored:
            merged = dict(_load(stored.body) or {})
        for path in sorted(owners.get(me, frozenset()) - fields, key=len, reverse=True):
            if not any(path in owned for owner, owned in owners.items() if owner != me):
                remove_field(merged, path)
        taken = set()
        for path in sorted(fields):
            part = value(intent, *path)
            if not isinstance(part, Mapping) and value(merged, *path) != part:
                taken.add(path)
            set_field(merged, path, part)
        owners = {owner: owned - taken for owner, owned in owners.items() if owner != me} | {me: fields}
        return self._store(ref, merged, owners, "patch", manager)

    def _replace(self, document: Document, manager: str, *, status: bool) -> Document:
        ref = ref_of(document)
        stored = self._current(ref)
        new = orjson.loads(orjson.dumps(document))
        if stored is None:
            if status:
                raise KeyError(ref)
            if _has_status(ref):
                new.pop("status", None)
            return self._store(ref, new, {}, "create", manager)
        old = dict(_load(stored.body) or {})
        if status or _has_status(ref):
            kept = old if status else new
            kept.pop("status", None)
            given = (new if status else old).get("status")
            if given is not None:
                kept["status"] = given
            new = kept
        owners = {
            owner: frozenset(path for path in owned if value(old, *path) == value(new, *path) or _is_map(new, path))
            for owner, owned in stored.owners.items()
        }
        return self._store(ref, new, owners, "update", manager)

    def _store(
        self,
        ref: Ref,
        document: dict[str, JSON],
        owners: Mapping[tuple[str, str, str], FieldSet],
        verb: str,
        manager: str,
    ) -> Document:
        stored = self._current(ref)
        old = _load(stored.body) if stored else None
        metadata = dict(mapping(document, "metadata"))
        kept = mapping(old or {}, "metadata")
        if old is None:
            self._uids += 1
            kept = {
                "uid": f"00000000-0000-4000-8000-{self._uids:012d}",
                "creationTimestamp": self._now().strftime("%Y-%m-%dT%H:%M:%SZ"),
                **({"generation": 1} if _has_status(ref) else {}),
            }
        metadata |= {"name": ref.name} | ({"namespace": ref.namespace} if ref.namespace else {})
        for key in ("uid", "creationTimestamp", "generation", "resourceVersion", "deletionTimestamp"):
            if key in kept:
                metadata[key] = kept[key]
        metadata["managedFields"] = _managed_fields(ref, owners)
        document = {**document, "metadata": metadata}
        if old is not None and _dump(old) == _dump(document):
            return orjson.loads(_dump(document))  # type: ignore[no-any-return]  # orjson types its answer Any
        if old is not None and _has_status(ref) and _spec_of(old) != _spec_of(document):
            generation = kept.get("generation")
            metadata["generation"] = (generation if isinstance(generation, int) else 0) + 1
        if metadata.get("deletionTimestamp") and not metadata.get("finalizers"):
            self._record(ref, None, owners, verb, manager)
            return document
        self._version += 1
        metadata["resourceVersion"] = str(self._version)
        body = _dump(document)
        self._record(ref, body, owners, verb, manager)
        return orjson.loads(body)  # type: ignore[no-any-return]  # orjson types its answer Any

    def _delete(self, ref: Ref, manager: str) -> None:
        stored = self._current(ref)
        document = dict(_load(stored.body) or {}) if stored else {}
        if sequence(document, "metadata", "finalizers"):
            if not text(document, "metadata", "deletionTimestamp"):
                self._version += 1
                document["metadata"] = {
                    **mapping(document, "metadata"),
                    "deletionTimestamp": self._now().strftime("%Y-%m-%dT%H:%M:%SZ"),
                    "resourceVersion": str(self._version),
                }
                self._record(ref, _dump(document), stored.owners if stored else {}, "delete", manager)
            return
        self._record(ref, None, {}, "delete", manager)

    def _record(
        self,
        ref: Ref,
        body: bytes | None,
        owners: Mapping[tuple[str, str, str], FieldSet],
        verb: str,
        manager: str,
    ) -> None:
        """Append a version; a deletion takes a version of its own."""
        stored = self._current(ref)
        before = stored.body if stored else None
        last = body
        if last is None:
            self._version += 1
            gone = dict(_load(before) or {})
            gone["metadata"] = {**mapping(gone, "metadata"), "resourceVersion": str(self._version)}
            last = _dump(gone)
        labels = labels_of(_load(body) or {})
        self._objects.setdefault(ref.kind, {}).setdefault(ref, []).append(_Stored(self._version, body, owners, labels))
        self._history.append(_Change(self._version, ref, before, body, last))
        self.writes.append(Write(verb, ref, manager, self._version))
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _seen(change: _Change, kind: Kind, namespace: str, labels: Mapping[str, str]) -> Sequence[WatchEvent]:
    """Return the event of a change as a watch with this selector sees it."""
    if change.ref.kind != kind:
        return ()
    before, after = _load(change.before), _load(change.after)
    was = before is not None and _selected(before, namespace, labels)
    is_now = after is not None and _selected(after, namespace, labels)
    shown = _load(change.last) or {}
    if is_now:
        return (WatchEvent("MODIFIED" if was else "ADDED", shown),)
    return (WatchEvent("DELETED", shown),) if was else ()


def _selected(document: Document, namespace: str, labels: Mapping[str, str] | None) -> bool:
    if namespace and text(document, "metadata", "namespace") != namespace:
        return False
    present = labels_of(document)
    return all(present.get(key) == wanted for key, wanted in (labels or {}).items())


def _managed_fields(ref: Ref, owners: Mapping[tuple[str, str, str], FieldSet]) -> list[JSON]:
    return [
        {
            "manager": manager,
            "operation": operation,
            "apiVersion": ref.kind.api_version,
            "fieldsType": "FieldsV1",
            "fieldsV1": as_fields_v1(fields),
            **({"subresource": subresource} if subresource else {}),
        }
        for (manager, operation, subresource), fields in sorted(owners.items())
        if fields
    ]


def _has_status(ref: Ref) -> bool:
    return ref.kind.group in _SUBRESOURCE_GROUPS


def _spec_of(document: Document) -> dict[str, JSON]:
    return {key: part for key, part in document.items() if key not in ("metadata", "status")}


def _is_map(document: Document, path: tuple[str, ...]) -> bool:
    return isinstance(value(document, *path), Mapping)


def _dump(document: Document) -> bytes:
    return orjson.dumps(document, option=orjson.OPT_SORT_KEYS)


def _load(body: bytes | None) -> Document | None:
    return None if body is None else orjson.loads(body)


def _error(error: type[E], ref: Ref, status: int, message: str) -> E:
    return error(message, kind=ref.kind.kind, namespace=ref.namespace, name=ref.name, status=status)
