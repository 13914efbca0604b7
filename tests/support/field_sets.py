"""Field ownership of the in-memory API server: server-side apply in the small, lists being atomic."""

from collections.abc import Iterable, Mapping
from typing import TypeAlias

from drivetrain.api.documents import JSON, Document

FieldPath: TypeAlias = tuple[str, ...]
FieldSet: TypeAlias = frozenset[FieldPath]

_NOT_OWNED = {"name", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp", "managedFields"}


def fields_of(document: Document) -> FieldSet:
    """Return the paths of all leaves and of all maps on the way that an applied document states."""
    found: set[FieldPath] = set()
    for key, part in document.items():
        if key in ("apiVersion", "kind"):
            continue
        if key == "metadata" and isinstance(part, Mapping):
            for name, field in part.items():
                if name not in _NOT_OWNED:
                    _collect(field, ("metadata", name), found)
        else:
            _collect(part, (key,), found)
    return frozenset(found)


def _collect(part: JSON, path: FieldPath, found: set[FieldPath]) -> None:
    found.add(path)
    if isinstance(part, Mapping):
        for key, inner in part.items():
            _collect(inner, (*path, key), found)


def set_field(document: dict[str, JSON], path: FieldPath, part: JSON) -> None:
    """Write a leaf, making the maps on the way; a map itself is made and keeps what it has."""
    parent = document
    for key in path[:-1]:
        inner = parent.get(key)
        if not isinstance(inner, dict):
            inner = {}
            parent[key] = inner
        parent = inner
    if isinstance(part, Mapping):
        if not isinstance(parent.get(path[-1]), dict):
            parent[path[-1]] = {}
    else:
        parent[path[-1]] = part


def remove_field(document: dict[str, JSON], path: FieldPath) -> None:
    """Remove a leaf, or a map that nothing is left in."""
    parent = document
    for key in path[:-1]:
        inner = parent.get(key)
        if not isinstance(inner, dict):
            return
        parent = inner
    if not (isinstance(parent.get(path[-1]), dict) and parent[path[-1]]):
        parent.pop(path[-1], None)


def as_fields_v1(fields: Iterable[FieldPath]) -> dict[str, JSON]:
    """Return the managedFields notation of a field set."""
    root: dict[str, JSON] = {}
    for path in sorted(fields):
        node = root
        for key in path:
            inner = node.setdefault(f"f:{key}", {})
            assert isinstance(inner, dict)
            node = inner
    return root
