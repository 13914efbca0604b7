"""What the store can do: whole objects, atomic and conditional writes, ordered listings."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from drivetrain.api.errors import StoreError


class ObjectMissingError(StoreError):
    """There is no object of that key; reason ObjectMissing."""

    def __init__(self, uri: str) -> None:
        super().__init__("ObjectMissing", f"There is no object {uri}.")
        self.uri = uri


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object without its bytes. `etag` is opaque and changes with every write that changes the bytes."""

    key: str
    etag: str
    size: int
    modified: datetime


class ObjectStore(Protocol):
    """Objects under one prefix. A reader sees all of an object or none of it; a finished write is seen by all.

    Every method raises StoreError (CredentialsRejected, BucketMissing, StoreUnavailable, StoreRefused) when the store
    does not do what was asked. After StoreUnavailable a write may have taken effect.
    """

    def uri(self, key: str = "") -> str:
        """Where the object lies, for people and for tools that read the store themselves."""
        ...

    def get(self, key: str) -> bytes:
        """The object's bytes. Raises ObjectMissingError."""
        ...

    def put(self, key: str, data: bytes) -> None:
        """Writes the object, over any older one."""
        ...

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Writes the object unless the key has one; whether it was written. Of several writers one is told True.

        A writer whose answer got lost is told False by its repetition: compare the bytes where that matters.
        """
        ...

    def put_if_match(self, key: str, data: bytes, etag: str) -> bool:
        """Writes the object if its etag is still `etag`; whether it was written."""
        ...

    def head(self, key: str) -> ObjectInfo | None:
        """The object without its bytes, None if there is none."""
        ...

    def list(self, prefix: str, start_after: str = "") -> Iterator[ObjectInfo]:
        """The objects whose key begins with `prefix` and sorts after `start_after`, ascending by the key bytes."""
        ...

    def delete(self, key: str) -> None:
        """Removes the object; one that is not there is no error."""
        ...

    def upload(self, key: str, file: Path) -> None:
        """Writes the file's bytes, without holding them all in memory."""
        ...

    def download(self, key: str, file: Path) -> None:
        """Writes the object to `file`, whose folder exists; an interrupted download leaves no `file`."""
        ...
