"""Metadata of children: names, owner references and the labels by which events find their owner again."""

from collections.abc import Mapping
from dataclasses import dataclass

from drivetrain.api.documents import JSON, Document, name_of, namespace_of, uid_of
from drivetrain.api.kinds import Kind, kind_of
from drivetrain.api.names import (
    MANAGED_BY,
    MANAGED_BY_LABEL,
    OWNER_KIND_LABEL,
    OWNER_NAME_LABEL,
    OWNER_UID_LABEL,
    PROJECT_LABEL,
)


@dataclass(frozen=True, slots=True)
class Owner:
    """The resource that a child belongs to."""

    kind: Kind
    namespace: str
    name: str
    uid: str
    project: str
    """The project that it serves or trains for."""

    @classmethod
    def of(cls, document: Document, project: str) -> "Owner":
        """The owner that this document is."""
        return cls(kind_of(document), namespace_of(document), name_of(document), uid_of(document), project)

    @property
    def labels(self) -> dict[str, str]:
        """Labels of every child, and of every Pod that a child makes."""
        return {
            MANAGED_BY_LABEL: MANAGED_BY,
            OWNER_KIND_LABEL: self.kind.kind,
            OWNER_NAME_LABEL: self.name,
            OWNER_UID_LABEL: self.uid,
            PROJECT_LABEL: self.project,
        }


def child(
    kind: Kind,
    name: str,
    owner: Owner,
    body: Document,
    *,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Document:
    """A whole object owned by `owner`: garbage collection deletes it after its owner, without holding the owner up."""
    metadata: dict[str, JSON] = {
        "name": name,
        "namespace": owner.namespace,
        "labels": {**owner.labels, **(labels or {})},
        "ownerReferences": [
            {
                "apiVersion": owner.kind.api_version,
                "kind": owner.kind.kind,
                "name": owner.name,
                "uid": owner.uid,
                "controller": True,
                "blockOwnerDeletion": False,
            }
        ],
    }
    if annotations:
        metadata["annotations"] = dict(annotations)
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, **body}
