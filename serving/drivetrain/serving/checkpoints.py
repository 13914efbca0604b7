"""The Monitor's checkpoints: evidence and watermark as one object, so that neither is ever ahead of the other."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from drivetrain.api import layout
from drivetrain.store import ObjectMissingError, ObjectStore

_FILE: Final = "checkpoint.json"
_FORM: Final = 5


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What had been counted, and up to when."""

    watermark: datetime
    evidence: Mapping[str, Any]


class Checkpoints:
    """Those of one Deployment. Each of its clusters saves into a folder of its own, and may go on from another's."""

    def __init__(self, store: ObjectStore, deployment: str, folder: str) -> None:
        self._store = store
        self._deployment = deployment
        self._folder = folder
        self._watermark: datetime | None = None

    def save(self, watermark: datetime | None, evidence: Mapping[str, Any]) -> bool:
        """Saves unless nothing has matured since the last time; whether it did. Raises StoreError."""
        if watermark is None or watermark == self._watermark:
            return False
        document = {"form": _FORM, "watermark": watermark.isoformat(), "evidence": evidence}
        self._store.put(f"{self._folder}/{_FILE}", json.dumps(document).encode())
        self._watermark = watermark
        return True

    def newest_folder(self) -> str:
        """This cluster's folder once it has saved there; before that, the one last saved to."""
        saved = [
            found
            for found in self._store.list(f"{layout.monitor(self._deployment)}/")
            if found.key.endswith(f"/{_FILE}")
        ]
        folders = {found.key.removesuffix(f"/{_FILE}"): found.modified for found in saved}
        if self._folder in folders or not folders:
            return self._folder
        return max(folders, key=lambda folder: folders[folder])

    def read(self, folder: str) -> Checkpoint | None:
        """The checkpoint in a folder; None where there is none, or one of another release's form."""
        try:
            document = json.loads(self._store.get(f"{folder}/{_FILE}"))
        except ObjectMissingError:
            return None
        if document.get("form") != _FORM:
            return None
        return Checkpoint(datetime.fromisoformat(document["watermark"]), document["evidence"])
