"""Data versions that plain DVC pulls, without Git: `versions/<md5>/{data.dvc, config, manifest.json}` in the store.

The file goes into DVC's own cache layout (`dvc/files/md5/ab/cdef...`, DVC 3), so nothing of DVC runs here; it would
cost seconds a run and wants a private site cache directory. To read a version elsewhere: put `data.dvc` into an empty
folder and `config` into `.dvc/` below it, set the AWS credentials, and call `dvc pull`.
"""

import configparser
import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

import polars as pl
import yaml

from drivetrain.api.canonical import canonical_json
from drivetrain.api.errors import SourceError, StoreError
from drivetrain.api.layout import DVC_CACHE, VERSIONS
from drivetrain.api.layout import version as version_key
from drivetrain.api.v1alpha1.dataset import Store
from drivetrain.store import ObjectMissingError, ObjectStore

DATA_FILE: Final = "data.parquet"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a version is made of; listing and comparing versions read only this."""

    rows: int
    columns: Mapping[str, str]
    """Name to type."""
    sources: Mapping[str, int]
    """Name to rows read."""
    created: str
    """RFC 3339."""
    watermark: str = ""
    """RFC 3339: logged decisions up to here are in it, if any."""
    left_out: int = 0
    """Logged decisions left out for lack of a required column or bounds broken."""
    project: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class DataVersion:
    """A version by its name, the md5 of its file."""

    md5: str
    rows: int


def write(store: ObjectStore, place: Store | None, frame: pl.DataFrame, manifest: Manifest) -> DataVersion:
    """Makes `frame` a version; the same rows in the same order give the same version. `place` is None for a directory.

    Raises StoreError.
    """
    content = parquet(frame)
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    key = version_key(md5)
    if store.head(f"{key}/manifest.json") is None:
        if store.head(_cache_key(md5)) is None:
            store.put(_cache_key(md5), content)
        store.put(f"{key}/data.dvc", _pointer(md5, len(content)).encode())
        store.put(f"{key}/config", _config(store, place).encode())
        # Last, so that a version that is listed is whole.
        store.put_if_absent(
            f"{key}/manifest.json",
            canonical_json(
                {name: getattr(manifest, name) for name in Manifest.__slots__} | {"version": md5, "bytes": len(content)}
            ).encode(),
        )
    return DataVersion(md5, frame.height)


def read(store: ObjectStore, md5: str) -> pl.DataFrame:
    """The version's rows. Raises SourceError: VersionNotFound, and StoreError when the file is not what it was."""
    try:
        content = store.get(_cache_key(md5))
    except ObjectMissingError:
        raise SourceError(
            "VersionNotFound",
            f"There is no data version {md5} in {store.uri(VERSIONS)}.",
            remedy="Correct spec.dataVersion, or set it to newest.",
        ) from None
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
        raise StoreError(
            "VersionAltered",
            f"{store.uri(_cache_key(md5))} is not what was written.",
            remedy="Restore it from a backup.",
        )
    return pl.read_parquet(io.BytesIO(content))


def manifest_of(store: ObjectStore, md5: str) -> Manifest:
    """What the version is made of. Raises SourceError: VersionNotFound."""
    try:
        found = json.loads(store.get(f"{version_key(md5)}/manifest.json"))
    except ObjectMissingError:
        raise SourceError(
            "VersionNotFound", f"There is no data version {md5}.", remedy="Correct spec.dataVersion."
        ) from None
    return Manifest(**{name: found[name] for name in Manifest.__slots__ if name in found})


def parquet(frame: pl.DataFrame) -> bytes:
    """The same bytes for the same rows, as long as polars is the same."""
    buffer = io.BytesIO()
    frame.write_parquet(buffer, compression="zstd", compression_level=3, statistics=True, row_group_size=262_144)
    return buffer.getvalue()


def describe(frame: pl.DataFrame, *, sources: Mapping[str, int], created: datetime, project: str) -> Manifest:
    """The manifest of a table."""
    columns = {name: str(kind) for name, kind in frame.schema.items()}
    return Manifest(frame.height, columns, dict(sources), created.isoformat(), project=project)


def _cache_key(md5: str) -> str:
    return f"{DVC_CACHE}/files/md5/{md5[:2]}/{md5[2:]}"


def _pointer(md5: str, size: int) -> str:
    return yaml.safe_dump({"outs": [{"md5": md5, "size": size, "hash": "md5", "path": DATA_FILE}]}, sort_keys=False)


def _config(store: ObjectStore, place: Store | None) -> str:
    config = configparser.ConfigParser()
    config["core"] = {"no_scm": "True", "remote": "store"}
    address = store.uri(DVC_CACHE)
    remote = {"url": address if place is not None else str(Path(unquote(urlsplit(address).path)))}
    if place is not None and place.endpoint:
        remote["endpointurl"] = place.endpoint
    if place is not None and place.region:
        remote["region"] = place.region
    config['remote "store"'] = remote
    text = io.StringIO()
    config.write(text)
    return text.getvalue()
