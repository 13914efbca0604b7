"""Raw Kubernetes objects as typed JSON: what crosses the API border before it is parsed into models.

Accessors never raise on absence: a missing path reads as empty, because every field of a live object may be missing.
"""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

JSON: TypeAlias = "Mapping[str, JSON] | Sequence[JSON] | str | int | float | bool | None"
Document: TypeAlias = Mapping[str, JSON]

EMPTY: Document = {}


def value(document: Document, *path: str) -> JSON:
    """Return what lies at `path` (map keys only), or None where any step of it is missing."""
    found: JSON = document
    for key in path:
        if not isinstance(found, Mapping):
            return None
        found = found.get(key)
    return found


def mapping(document: Document, *path: str) -> Document:
    """Return the map at `path`, or an empty one."""
    found = value(document, *path)
    return found if isinstance(found, Mapping) else EMPTY


def sequence(document: Document, *path: str) -> Sequence[JSON]:
    """Return the list at `path`, or an empty one."""
    found = value(document, *path)
    return found if isinstance(found, Sequence) and not isinstance(found, str) else ()


def documents(document: Document, *path: str) -> tuple[Document, ...]:
    """Return the maps in the list at `path`; elements of other types are left out."""
    return tuple(element for element in sequence(document, *path) if isinstance(element, Mapping))


def text(document: Document, *path: str) -> str:
    """Return the string at `path`, or an empty one."""
    found = value(document, *path)
    return found if isinstance(found, str) else ""


def integer(document: Document, *path: str) -> int:
    """Return the integer at `path`, or 0."""
    found = value(document, *path)
    return found if isinstance(found, int) and not isinstance(found, bool) else 0


def texts(document: Document, *path: str) -> dict[str, str]:
    """Return the string values of the map at `path` (labels, annotations, ConfigMap data)."""
    return {key: found for key, found in mapping(document, *path).items() if isinstance(found, str)}


def name_of(document: Document) -> str:
    """Return metadata.name."""
    return text(document, "metadata", "name")


def namespace_of(document: Document) -> str:
    """Return metadata.namespace, empty for cluster-scoped objects."""
    return text(document, "metadata", "namespace")


def uid_of(document: Document) -> str:
    """Return metadata.uid, empty for an object that was never stored."""
    return text(document, "metadata", "uid")


def resource_version_of(document: Document) -> str:
    """Return metadata.resourceVersion, empty for an object that was never stored."""
    return text(document, "metadata", "resourceVersion")


def labels_of(document: Document) -> dict[str, str]:
    """Return metadata.labels."""
    return texts(document, "metadata", "labels")


def annotations_of(document: Document) -> dict[str, str]:
    """Return metadata.annotations."""
    return texts(document, "metadata", "annotations")
