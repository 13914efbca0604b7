"""Data versions are DVC's: the plain `dvc` command gets them back, without Git and without our code."""

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from drivetrain.api.errors import SourceError, StoreError
from drivetrain.api.v1alpha1.dataset import Store
from drivetrain.pipelines import versions
from drivetrain.store import DirectoryStore, ObjectStore
from tests.support.s3 import S3Server

FRAME = pl.DataFrame({"week": [1, 2, 3], "price": [1.69, 1.75, None], "brand": ["CH", None, "MM"]})
LATER = datetime(2026, 1, 1, tzinfo=UTC)


def a_manifest(frame: pl.DataFrame) -> versions.Manifest:
    return versions.describe(frame, sources={"visits": frame.height}, created=LATER, project="juice")


@pytest.fixture(params=["directory", pytest.param("s3", marks=pytest.mark.binaries)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[ObjectStore, Store | None, dict[str, str]]:
    """A store, its place, and the environment in which `dvc` finds its credentials."""
    if request.param == "directory":
        return DirectoryStore(tmp_path / "store"), None, {}
    server: S3Server = request.getfixturevalue("s3_server")
    uri: str = request.getfixturevalue("s3_uri")
    return server.open(uri), server.place(uri), server.environment()


def test_plain_dvc_pulls_a_version_into_a_fresh_directory(
    place: tuple[ObjectStore, Store | None, dict[str, str]], tmp_path: Path
) -> None:
    store, where, env = place
    version = versions.write(store, where, FRAME, a_manifest(FRAME))
    fresh = tmp_path / "fresh"
    (fresh / ".dvc").mkdir(parents=True)
    (fresh / "data.dvc").write_bytes(store.get(f"versions/{version.md5}/data.dvc"))
    (fresh / ".dvc" / "config").write_bytes(store.get(f"versions/{version.md5}/config"))
    caches = {"DVC_SITE_CACHE_DIR": str(tmp_path / "site-cache"), "DVC_NO_ANALYTICS": "1", "HOME": str(tmp_path)}
    pulled = subprocess.run(
        [Path(sys.executable).parent / "dvc", "pull"],
        cwd=fresh,
        env={**os.environ, **env, **caches},
        capture_output=True,
        text=True,
        check=False,
    )
    assert pulled.returncode == 0, pulled.stderr
    assert pl.read_parquet(fresh / "data.parquet").equals(FRAME)


def test_equal_rows_are_one_version_and_other_rows_another(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    first = versions.write(store, None, FRAME, a_manifest(FRAME))
    again = versions.write(store, None, FRAME.clone(), a_manifest(FRAME))
    other = versions.write(store, None, FRAME.reverse(), a_manifest(FRAME))
    assert first == again
    assert first != other
    assert versions.read(store, other.md5).equals(FRAME.reverse())


def test_a_version_tells_what_it_is_made_of_without_its_rows(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    version = versions.write(store, None, FRAME, a_manifest(FRAME))
    manifest = versions.manifest_of(store, version.md5)
    assert (manifest.rows, manifest.sources, manifest.project) == (3, {"visits": 3}, "juice")
    assert manifest.columns == {"week": "Int64", "price": "Float64", "brand": "String"}


def test_a_version_that_is_not_there_is_a_mistake_of_the_spec(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no data version 0123") as caught:
        versions.read(DirectoryStore(tmp_path), "0123" * 8)
    assert caught.value.reason == "VersionNotFound"


def test_an_altered_file_is_not_read(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    md5 = versions.write(store, None, FRAME, a_manifest(FRAME)).md5
    store.put(f"dvc/files/md5/{md5[:2]}/{md5[2:]}", b"other")
    with pytest.raises(StoreError, match="not what was written"):
        versions.read(store, md5)
