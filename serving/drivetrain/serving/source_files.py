"""Watches the files of the project's sources, so that new data can start a training.

Only what this pod can list is watched: s3:// with the store's own credentials, and file:// that lies on this node.
Sources with a Secret of their own (it is mounted into runs, not here) and https:// are left out, and named.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from drivetrain.api.canonical import digest
from drivetrain.api.errors import StoreError
from drivetrain.api.layout import location_of
from drivetrain.api.v1alpha1.dataset import Source, Store
from drivetrain.store import open_store

_PERMANENT: Final = frozenset({"BucketMissing", "CredentialsMissing", "CredentialsRejected", "StoreRefused"})


@dataclass(frozen=True, slots=True)
class SourcesSeen:
    """What one look found."""

    fingerprint: str | None = None
    """`<watched sources>-<their files>`; the second part changes when files come, go or change."""
    left_out: Mapping[str, str] | None = None
    """Source to why it is not watched."""

    def in_words(self) -> dict[str, str]:
        """What status says: nothing while all are watched."""
        told = "; ".join(f"{name} {why}" for name, why in sorted((self.left_out or {}).items()))
        return {"newData": f"not watched: {told}"[:512]} if told else {}


@dataclass(frozen=True, slots=True)
class SourceWatch:
    """Lists files with the store's endpoint and credentials; `store` is None where that is a directory."""

    store: Store | None
    env: Mapping[str, str]

    def look(self, sources: Sequence[Source]) -> SourcesSeen:
        """Lists every watched source. Raises StoreError when a store does not answer: then nothing is known."""
        watched: dict[str, list[str]] = {}
        left_out: dict[str, str] = {}
        for source in sources:
            if source.uri is None:
                continue
            try:
                why = self._why_not(source)
                if not why:
                    watched[f"{source.name} {source.uri}"] = sorted(self._files(source, source.uri))
            except StoreError as error:
                if error.reason not in _PERMANENT:
                    raise
                why = f"cannot be listed ({error.reason})"
            except OSError as error:
                why = f"cannot be listed ({error.strerror})"
            if why:
                left_out[source.name] = why
        if not watched:
            return SourcesSeen(None, left_out)
        return SourcesSeen(f"{digest(sorted(watched))[:8]}-{digest(watched)[:32]}", left_out)

    def _why_not(self, source: Source) -> str:
        uri = source.uri or ""
        if uri.startswith("https://"):
            return "is on the web"
        if uri.startswith("file://"):
            return "" if _path(uri).exists() else "is not on this node"
        if source.credentials is not None:
            return "has credentials of its own"
        return "" if self.store is not None else "needs the credentials of an S3 store"

    def _files(self, source: Source, uri: str) -> Iterator[str]:
        if uri.startswith("file://"):
            yield from _local(_path(uri))
            return
        assert self.store is not None
        place = location_of(uri)
        bucket = open_store(
            Store(
                uri=f"s3://{place.bucket}",
                endpoint=source.endpoint or self.store.endpoint,
                region=source.region or self.store.region,
                credentials=self.store.credentials,
            ),
            self.env,
        )
        exact = bucket.head(place.prefix) if place.prefix else None
        if exact is not None:
            yield f"{exact.key} {exact.etag} {exact.size}"
            return
        for found in bucket.list(f"{place.prefix}/" if place.prefix else ""):
            if _is_data(found.key):
                yield f"{found.key} {found.etag} {found.size}"


def _local(path: Path) -> Iterator[str]:
    for file in [path] if path.is_file() else path.rglob("*"):
        try:
            if file.is_file() and (file == path or _is_data(file.name)):
                state = file.stat()
                yield f"{file} {state.st_mtime_ns} {state.st_size}"
        except FileNotFoundError:  # it went while we looked; the next look agrees
            continue


def _path(uri: str) -> Path:
    return Path(unquote(urlsplit(uri).path))


def _is_data(name: str) -> bool:
    """Whether a file below a prefix is data, as a run reads it: markers such as _SUCCESS and hidden files are not."""
    return not name.rpartition("/")[2].startswith(("_", "."))
