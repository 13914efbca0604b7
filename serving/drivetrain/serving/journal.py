"""The decision journal: on this node's disk before the answer, on the store within a second, exactly once.

A replica owns one folder `<journal>/<writer>/` and holds an flock on its file `lock` for as long as it lives; the
kernel lets go of it at any death. Frames (length, CRC-32, payload) are appended to the segment `<seq>.open`. A segment
is closed by renaming it to `<seq>.closed`; from then on it never changes. A closed segment is uploaded under a key that
follows from its content, writer and number, and deleted afterwards. So whoever uploads it again, after a crash at any
point, writes the same object. A folder whose lock can be taken belongs to nobody: the next replica on the node, or the
Monitor, closes and uploads what is left in it.
"""

import errno
import fcntl
import os
import shutil
import struct
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from drivetrain.store import ObjectStore

_HEADER: Final = struct.Struct("<II")
_LOCK: Final = "lock"
UNSENT_LIMIT: Final = 1 << 30
"""Bytes of one writer that wait for the store at most; a journal that is full refuses decisions."""


class Encoder(Protocol):
    """Turns the frames of one segment into the objects to write; pure, so that repetition gives the same bytes."""

    def __call__(self, frames: list[bytes], writer: str, sequence: int) -> "list[Upload]": ...


@dataclass(frozen=True, slots=True)
class Upload:
    """One object of a segment."""

    key: str
    data: bytes


class Journal:
    """One writer's journal; its methods may be called from several threads."""

    def __init__(self, folder: Path, writer: str, limit: int = UNSENT_LIMIT) -> None:
        """Makes and claims `<folder>/<writer>`, which must be new: writers are named anew by every process."""
        self.writer = writer
        self._limit = limit
        self._folder = folder / writer
        hidden = folder / f".{writer}"  # only a folder whose lock is held may be seen by `recover`
        hidden.mkdir(parents=True)
        self._lock = _claim(hidden)
        hidden.rename(self._folder)
        self._guard = threading.Lock()
        self._uploading = threading.Lock()
        self._sequence = 1
        self._unsent = 0
        self._header = b""
        self._length = 0
        """Bytes of whole frames in the current segment."""
        self._torn = False
        """Whether a part of a frame that was refused may follow them."""
        self._file = self._open(self._sequence)

    def begin(self, header: bytes) -> None:
        """Every segment from now on starts with the frame `header`."""
        with self._guard:
            self._rotate()
            self._header = header

    def append(self, payload: bytes) -> None:
        """Adds a frame; returns once the kernel has it, which the death of this process cannot undo.

        Raises OSError when the disk refuses it, or too much waits for the store: then nothing may be answered.
        """
        frame = _framed(payload)
        with self._guard:
            if self._unsent + len(frame) > self._limit:
                raise OSError(errno.EDQUOT, "too many decisions wait for the store", str(self._folder))
            if not self._length:
                frame = _framed(self._header) + frame
            if self._torn:  # what follows a torn frame is not read
                os.ftruncate(self._file, self._length)
            self._torn = True
            written = os.write(self._file, frame)
            while written < len(frame):
                written += os.write(self._file, frame[written:])
            self._torn = False
            self._unsent += len(frame)
            self._length += len(frame)

    def rotate(self) -> None:
        """Closes the current segment if it holds a frame. After an OSError it goes on as before."""
        with self._guard:
            self._rotate()

    def _rotate(self) -> None:
        if not self._length:
            return
        following = self._open(self._sequence + 1)
        try:
            path = self._segment(self._sequence)
            path.rename(path.with_suffix(".closed"))
        except OSError:
            os.close(following)
            raise
        closed, self._file = self._file, following
        self._sequence += 1
        self._length, self._torn = 0, False
        os.close(closed)

    def upload_closed(self, store: ObjectStore, encode: Encoder) -> int:
        """Uploads and deletes closed segments, oldest first; returns how many. StoreError leaves the rest for later.

        A second call at the same time waits for the first.
        """
        try:
            with self._uploading:
                return _upload(self._folder, self.writer, store, encode)
        finally:
            with self._guard:
                self._unsent = sum(path.stat().st_size for path in self._folder.glob("[0-9]*"))

    def close(self) -> None:
        """Lets the folder go; what is not uploaded yet is left to the next replica."""
        with self._guard:
            os.close(self._file)
            if not self._length:
                self._segment(self._sequence).unlink(missing_ok=True)
            os.close(self._lock)

    def _segment(self, sequence: int) -> Path:
        return self._folder / f"{sequence:012d}.open"

    def _open(self, sequence: int) -> int:
        return os.open(self._segment(sequence), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def recover(folder: Path, store: ObjectStore, encode: Encoder, *, skip: str = "") -> int:
    """Uploads what dead writers left below `folder` and removes their folders; returns how many segments."""
    recovered = 0
    for left in sorted(folder.glob("*/")) if folder.exists() else []:
        if left.name == skip:
            continue
        try:
            lock = _claim(left)
        except (BlockingIOError, FileNotFoundError):
            continue
        try:
            for path in sorted(left.glob("*.open")):
                path.rename(path.with_suffix(".closed"))
            recovered += _upload(left, left.name, store, encode)
            shutil.rmtree(left, ignore_errors=True)  # another recoverer may be looking at it; the next one gets it
        finally:
            os.close(lock)
    return recovered


def read_frames(path: Path) -> Iterator[bytes]:
    """The whole frames of a segment. A torn one at its end was never answered, and is left out."""
    data = path.read_bytes()
    at = 0
    while at + _HEADER.size <= len(data):
        length, checksum = _HEADER.unpack_from(data, at)
        payload = data[at + _HEADER.size : at + _HEADER.size + length]
        if len(payload) < length or zlib.crc32(payload) != checksum:
            return
        yield payload
        at += _HEADER.size + length


def _upload(folder: Path, writer: str, store: ObjectStore, encode: Encoder) -> int:
    paths = sorted(folder.glob("*.closed"))
    for path in paths:
        frames = list(read_frames(path))
        for upload in encode(frames, writer, _number(path)) if frames else []:
            store.put(upload.key, upload.data)
        path.unlink()
    return len(paths)


def _claim(folder: Path) -> int:
    lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise
    return lock


def _framed(payload: bytes) -> bytes:
    return _HEADER.pack(len(payload), zlib.crc32(payload)) + payload


def _number(path: Path) -> int:
    return int(path.stem) if path.stem.isdigit() else 0
