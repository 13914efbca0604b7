"""The store as a directory: for the local proof of concept and for tests. Same contract as S3, processes included."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from drivetrain.api.errors import StoreError
from drivetrain.store.port import ObjectInfo, ObjectMissingError

_OWN = ".drivetrain"
"""Scratch files and the lock; never listed."""


class DirectoryStore:
    """Objects as files below `root`, which is made when absent."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        self._scratch = self._root / _OWN
        self._scratch.mkdir(parents=True, exist_ok=True)

    def uri(self, key: str = "") -> str:
        return (self._root / key).as_uri()

    def get(self, key: str) -> bytes:
        with self._present(key):
            return self._path(key).read_bytes()

    def put(self, key: str, data: bytes) -> None:
        with self._written(key, data) as scratch, self._locked():
            scratch.replace(self._path(key))

    def put_if_absent(self, key: str, data: bytes) -> bool:
        with self._written(key, data) as scratch, self._locked():
            if self._path(key).exists():
                return False
            scratch.replace(self._path(key))
            return True

    def put_if_match(self, key: str, data: bytes, etag: str) -> bool:
        with self._written(key, data) as scratch, self._locked():
            info = self.head(key)
            if info is None or info.etag != etag:
                return False
            scratch.replace(self._path(key))
            return True

    def head(self, key: str) -> ObjectInfo | None:
        path = self._path(key)
        try:
            found = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not path.is_file():
            return None
        # Each write makes a new file, so inode and time name the write; hashing gigabytes for an etag would not do.
        return ObjectInfo(
            key=key,
            etag=f"{found.st_ino:x}-{found.st_mtime_ns:x}-{found.st_size:x}",
            size=found.st_size,
            modified=datetime.fromtimestamp(found.st_mtime, UTC),
        )

    def list(self, prefix: str, start_after: str = "") -> Iterator[ObjectInfo]:
        folder = self._root / prefix.rpartition("/")[0]
        keys = (path.relative_to(self._root).as_posix() for path in folder.rglob("*") if path.is_file())
        wanted = (key for key in keys if key.startswith(prefix) and key > start_after and not key.startswith(_OWN))
        for key in sorted(wanted, key=str.encode):
            info = self.head(key)
            if info is not None:
                yield info

    def delete(self, key: str) -> None:
        self._path(key).unlink(missing_ok=True)

    def upload(self, key: str, file: Path) -> None:
        with self._written(key, b"") as scratch, self._locked():
            shutil.copyfile(file, scratch)
            scratch.replace(self._path(key))

    def download(self, key: str, file: Path) -> None:
        partial = file.with_name(file.name + ".partial")
        with self._present(key):
            shutil.copyfile(self._path(key), partial)
        partial.replace(file)

    def _path(self, key: str) -> Path:
        if not key or key.startswith("/") or ".." in PurePosixPath(key).parts:
            raise StoreError("StoreRefused", f"{key!r} is no key: it leaves the store.")
        return self._root / key

    @contextmanager
    def _present(self, key: str) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise ObjectMissingError(self.uri(key)) from None

    @contextmanager
    def _written(self, key: str, data: bytes) -> Iterator[Path]:
        """The bytes on disk beside the objects, ready to be renamed into place."""
        target = self._path(key)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(dir=self._scratch)
            scratch = Path(name)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                yield scratch
            finally:
                scratch.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(
                "StoreUnavailable", f"{self.uri(key)} cannot be written: {error}.", remedy="Check space and rights."
            ) from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self._scratch / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
