"""Sources: CSV, Parquet and JSON lines from file://, https:// and s3://, read with the project's own credentials."""

import hashlib
import io
import urllib.error
import urllib.request
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

import polars as pl

from drivetrain.api.errors import SourceError, StoreError
from drivetrain.api.layout import location_of
from drivetrain.api.v1alpha1.dataset import Source, Store
from drivetrain.store import ObjectMissingError, S3Store
from drivetrain.store.opening import ACCESS_KEY_ENV, SECRET_KEY_ENV

_PARALLEL_DOWNLOADS = 8
_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of a source; `state` changes when its content does."""

    name: str
    state: str


class Files(Protocol):
    """Where a source's files lie."""

    def list(self) -> tuple[SourceFile, ...]:
        """The files in order of their names; empty when nothing is there. Raises SourceError, StoreError."""
        ...

    def get(self, name: str) -> bytes:
        """A file's bytes. Raises SourceError, StoreError."""
        ...


@dataclass(frozen=True, slots=True)
class SourceReader:
    """Reads sources with the credentials that the operator mounted."""

    store: Store
    """Gives endpoint and region where a source names none."""
    env: Mapping[str, str]
    """Holds the store's credentials, used for sources without their own."""
    secrets: Path | None = None
    """Folder with one folder of credential files per source that has its own Secret."""

    def fingerprint(self, source: Source) -> str:
        """Changes when files of the source come, go or change. Raises SourceError: SourceNotFound, SourceUnreadable."""
        listed = self._present(source, self._files(source))
        text = "\n".join(f"{file.name} {file.state}" for file in listed)
        return hashlib.sha256(f"{source.uri}\n{source.format}\n{text}".encode()).hexdigest()[:32]

    def read(self, source: Source) -> pl.DataFrame:
        """All rows of the source, as written; a column that some files lack is null there.

        Raises SourceError: SourceNotFound, SourceUnreadable, SourceEmpty, SourceFormat, CredentialsMissing.
        """
        files = self._files(source)
        names = [file.name for file in self._present(source, files)]
        with ThreadPoolExecutor(_PARALLEL_DOWNLOADS) as pool:
            frames = [
                _parsed(content, source, name) for name, content in zip(names, pool.map(files.get, names), strict=True)
            ]
        try:
            frame = pl.concat([frame for frame in frames if frame.height], how="diagonal_relaxed")
        except (ValueError, pl.exceptions.PolarsError):
            if not any(frame.height for frame in frames):
                raise SourceError(
                    "SourceEmpty", f"Source {source.name} at {source.uri} has no rows.", remedy="Fill it, or remove it."
                ) from None
            raise _format_error(source, names[0], "its files do not agree on the types of columns") from None
        return frame

    def _present(self, source: Source, files: Files) -> tuple[SourceFile, ...]:
        listed = files.list()
        if not listed:
            raise SourceError(
                "SourceNotFound",
                f"Source {source.name}: there is nothing at {source.uri}.",
                remedy="Correct the uri in data.sources, or put the data there.",
            )
        return listed

    def _files(self, source: Source) -> Files:
        assert source.uri is not None, "the decision log is read by drivetrain.pipelines.feedback"
        if source.uri.startswith("file://"):
            return _LocalFiles(source, Path(unquote(urlsplit(source.uri).path)))
        if source.uri.startswith("https://"):
            return _WebFile(source, source.uri)
        return _BucketFiles(source, self._bucket(source))

    def _bucket(self, source: Source) -> S3Store:
        assert source.uri is not None
        access, secret = (self._credential(source, name) for name in (ACCESS_KEY_ENV, SECRET_KEY_ENV))
        place = Store(
            uri=f"s3://{location_of(source.uri).bucket}",
            endpoint=source.endpoint or self.store.endpoint,
            region=source.region or self.store.region,
            credentials=source.credentials or self.store.credentials,
        )
        return S3Store(place, access, secret)

    def _credential(self, source: Source, key: str) -> str:
        secret = (source.credentials or self.store.credentials).secret_name
        try:
            if source.credentials is None or self.secrets is None:
                return self.env[key]
            return (self.secrets / source.name / key).read_text().strip()
        except (KeyError, OSError):
            raise SourceError(
                "CredentialsMissing",
                f"Source {source.name}: the Secret {secret} has no key {key}.",
                remedy=f"Create it: kubectl create secret generic {secret} "
                f"--from-literal={ACCESS_KEY_ENV}=... --from-literal={SECRET_KEY_ENV}=...",
            ) from None


@dataclass(frozen=True, slots=True)
class _LocalFiles:
    source: Source
    path: Path

    def list(self) -> tuple[SourceFile, ...]:
        try:
            if self.path.is_file():
                found = [self.path]
            elif self.path.is_dir():
                found = sorted(path for path in self.path.rglob("*") if path.is_file() and _is_data(path.name))
            else:
                return ()
            return tuple(SourceFile(str(path), f"{path.stat().st_size} {path.stat().st_mtime_ns}") for path in found)
        except OSError as error:
            raise _unreadable(self.source, str(error)) from error

    def get(self, name: str) -> bytes:
        try:
            return Path(name).read_bytes()
        except OSError as error:
            raise _unreadable(self.source, str(error)) from error


@dataclass(frozen=True, slots=True)
class _WebFile:
    source: Source
    address: str

    def list(self) -> tuple[SourceFile, ...]:
        request = urllib.request.Request(self.address, method="HEAD")  # noqa: S310 - https, by the type of uri
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:  # noqa: S310 - likewise
                state = [answer.headers.get(name, "") for name in ("ETag", "Last-Modified", "Content-Length")]
        except urllib.error.HTTPError as error:
            if error.code in (403, 405, 501):
                # Signed addresses and small servers often allow GET only; the content then tells itself.
                return (SourceFile(self.address, hashlib.sha256(self.get(self.address)).hexdigest()),)
            return self._absent(error)
        except urllib.error.URLError as error:
            raise self._unavailable(error) from error
        return (SourceFile(self.address, " ".join(state)),)

    def get(self, name: str) -> bytes:
        try:
            with urllib.request.urlopen(name, timeout=_TIMEOUT) as answer:  # noqa: S310 - https, by the type of uri
                content: bytes = answer.read()
                return content
        except urllib.error.HTTPError as error:
            if not self._absent(error):
                raise SourceError(
                    "SourceNotFound",
                    f"Source {self.source.name}: there is nothing at {self.source.uri}.",
                    remedy="Correct the uri in data.sources.",
                ) from error
            raise
        except (urllib.error.URLError, TimeoutError) as error:
            raise self._unavailable(error) from error

    def _absent(self, error: urllib.error.HTTPError) -> tuple[SourceFile, ...]:
        """Nothing for 404 and 410; raises for every other status."""
        if error.code in (404, 410):
            return ()
        if error.code >= 500 or error.code == 429:
            raise self._unavailable(error) from error
        raise _unreadable(self.source, f"the server answers {error.code} {error.reason}") from error

    def _unavailable(self, error: Exception) -> StoreError:
        return StoreError(
            "SourceUnavailable",
            f"Source {self.source.name}: {self.address} does not answer: {error}.",
            remedy="Try again later.",
        )


@dataclass(frozen=True, slots=True)
class _BucketFiles:
    source: Source
    bucket: S3Store

    def list(self) -> tuple[SourceFile, ...]:
        assert self.source.uri is not None
        prefix = location_of(self.source.uri).prefix
        try:
            exact = self.bucket.head(prefix) if prefix else None
            if exact is not None:
                return (SourceFile(prefix, exact.etag),)
            return tuple(
                SourceFile(found.key, found.etag)
                for found in self.bucket.list(f"{prefix}/" if prefix else "")
                if _is_data(found.key)
            )
        except StoreError as error:
            raise self._translated(error) from error

    def get(self, name: str) -> bytes:
        try:
            return self.bucket.get(name)
        except StoreError as error:
            raise self._translated(error) from error

    def _translated(self, error: StoreError) -> SourceError | StoreError:
        if isinstance(error, ObjectMissingError) or error.reason == "BucketMissing":
            return SourceError("SourceNotFound", f"Source {self.source.name}: {error.message}", remedy=error.remedy)
        if error.reason in ("CredentialsRejected", "StoreRefused"):
            return _unreadable(self.source, error.message)
        return error


def _is_data(name: str) -> bool:
    """Whether a file below a prefix is data; writers leave markers such as _SUCCESS and hidden files."""
    return not name.rpartition("/")[2].startswith(("_", "."))


def _parsed(content: bytes, source: Source, name: str) -> pl.DataFrame:
    if not content.strip():
        return pl.DataFrame()
    try:
        match source.format:
            case "Parquet":
                return pl.read_parquet(io.BytesIO(content))
            case "CSV":
                if content.startswith(b"PAR1"):
                    raise _format_error(source, name, "it is Parquet")
                return pl.read_csv(io.BytesIO(content), infer_schema=False)
            case "JSONLines":
                return pl.read_ndjson(io.BytesIO(content), infer_schema_length=None)
            case "DecisionLog":
                raise AssertionError("the decision log is read by drivetrain.pipelines.feedback")
    except pl.exceptions.NoDataError:
        return pl.DataFrame()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _format_error(source, name, str(error).splitlines()[0][:200]) from error


def _format_error(source: Source, name: str, why: str) -> SourceError:
    return SourceError(
        "SourceFormat",
        f"Source {source.name}: {name} is no {source.format}: {why}.",
        remedy="Correct format in data.sources, or the file.",
    )


def _unreadable(source: Source, why: str) -> SourceError:
    return SourceError(
        "SourceUnreadable",
        f"Source {source.name} at {source.uri} cannot be read: {why}.",
        remedy="Check the credentials of the source and what they may do.",
    )
