"""The nine stages and their one contract: typed in, typed out, outputs content-addressed by the hash of their inputs.

A stage's outputs are files. They are uploaded below `stages/<name>/<hash>/<writer>/` and committed by a manifest that
is written once (If-None-Match): of two attempts that finish the same stage, one commits, both go on with its files.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol, TypeVar

from drivetrain.api.canonical import Hashable, canonical_json, digest
from drivetrain.api.errors import StoreError
from drivetrain.api.layout import stage as stage_key
from drivetrain.store import ObjectMissingError, ObjectStore

T = TypeVar("T")


class StageName(StrEnum):
    """The assembly line, in order."""

    COLLECTION = "Collection"
    FEATURES = "Features"
    SELECTION = "Selection"
    TRAINING = "Training"
    EVALUATION = "Evaluation"
    TUNING = "Tuning"
    ENSEMBLES = "Ensembles"
    DEPLOYMENT = "Deployment"
    FEEDBACK = "Feedback"


class Stage(Protocol[T]):
    """One step. Equal `inputs` and `code` mean equal output, so that output is reused."""

    @property
    def name(self) -> StageName:
        """Which of the nine."""
        ...

    @property
    def code(self) -> int:
        """Version of the stage's code; raise it when equal inputs would give another output."""
        ...

    def inputs(self) -> Hashable:
        """Everything that the output depends on: hashes of earlier outputs, the part of the spec that it reads."""
        ...

    def run(self, advance: Callable[[float], None]) -> T:
        """Does the work; calls `advance` with the share done, 0 to 1."""
        ...

    def save(self, output: T, folder: Path) -> None:
        """Writes the output as files (no folders) into an empty folder."""
        ...

    def load(self, folder: Path) -> T:
        """Reads what `save` wrote."""
        ...


class Guard(Protocol):
    """Tells whether this driver may still commit."""

    @property
    def writer(self) -> str:
        """Names this attempt and incarnation in keys."""
        ...

    def check(self) -> None:
        """Raises FencedError when another attempt or incarnation owns the work."""
        ...


class Observer(Protocol):
    """Hears how far the line is."""

    def began(self, stage: StageName) -> None:
        """The stage starts, or is about to be reused."""
        ...

    def advanced(self, stage: StageName, share: float) -> None:
        """This share of the stage is done."""
        ...

    def ended(self, stage: StageName, *, reused: bool, seconds: float) -> None:
        """The stage's output is there."""
        ...


def input_hash(stage: Stage[T]) -> str:
    """Names the stage's output: hash of its name, code version and inputs, 32 hex digits."""
    return digest({"stage": str(stage.name), "code": stage.code, "inputs": stage.inputs()})[:32]


@dataclass(frozen=True, slots=True)
class StageRunner:
    """Runs stages, or takes their outputs from the store."""

    store: ObjectStore
    work: Path
    """Scratch folder, which exists."""
    guard: Guard
    observer: Observer
    fresh: Callable[[], None] = lambda: None
    """Called before a stage is computed, because its output cannot be taken from the store."""

    def run(self, stage: Stage[T]) -> T:
        """The stage's output: from the store when its inputs are unchanged, else computed and committed.

        Raises FencedError before a commit that no longer counts, StoreError, and whatever the stage raises.
        """
        started = time.monotonic()
        self.observer.began(stage.name)
        key = stage_key(str(stage.name), input_hash(stage))
        files = self._committed(key)
        if files is not None:
            output = stage.load(self._fetched(key, files))
            self.observer.ended(stage.name, reused=True, seconds=time.monotonic() - started)
            return output
        self.fresh()
        output = stage.run(lambda share: self.observer.advanced(stage.name, share))
        folder = emptied(self.work / key / "output")
        stage.save(output, folder)
        committed = self._commit(key, folder)
        if not committed:
            winner = self._committed(key)
            if winner is not None:
                output = stage.load(self._fetched(key, winner))
        self.observer.ended(stage.name, reused=False, seconds=time.monotonic() - started)
        return output

    def _committed(self, key: str) -> dict[str, str] | None:
        """File name to object key, below the stage's key; None when nobody has committed."""
        try:
            return dict(json.loads(self.store.get(f"{key}/manifest.json"))["files"])
        except ObjectMissingError:
            return None

    def _fetched(self, key: str, files: dict[str, str]) -> Path:
        folder = emptied(self.work / key / "input")
        for name, address in files.items():
            self.store.download(f"{key}/{address}", folder / name)
            if _sha256(folder / name) != address.rpartition("/")[2]:
                raise StoreError(
                    "StageAltered",
                    f"{self.store.uri(f'{key}/{address}')} is not what was written.",
                    remedy=f"Delete {self.store.uri(key)}; the stage then runs again.",
                )
        return folder

    def _commit(self, key: str, folder: Path) -> bool:
        files = {}
        self.guard.check()
        for file in sorted(folder.iterdir()):
            files[file.name] = f"{self.guard.writer}/{_sha256(file)}"
            self.store.upload(f"{key}/{files[file.name]}", file)
        self.guard.check()
        return self.store.put_if_absent(f"{key}/manifest.json", canonical_json({"files": files}).encode())


def emptied(folder: Path) -> Path:
    """The folder, made anew."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
