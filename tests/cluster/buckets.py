"""A team's bucket on the evaluation's S3 server, and what its runs leave there."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from drivetrain.api import layout
from drivetrain.api.documents import Document, text, uid_of
from drivetrain.api.dossier import Dossier
from drivetrain.api.model import CONTRACT_FILE, ModelContract
from tests.cluster.teams import Team


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket whose projects keep to `s3://TEAM/PROJECT`."""

    name: str
    client: Any = field(repr=False)

    def trials(self, run: Document) -> dict[str, dict[str, Any]]:
        """The trial log of a run's first attempt by key, without how long each trial took."""
        records = [json.loads(self._read(key)) for key in self._listed(run, "trials")]
        return {each["key"]: {name: part for name, part in each.items() if name != "seconds"} for each in records}

    def trial_times(self, run: Document) -> dict[str, datetime]:
        """When each of these trials was logged."""
        return self._listed(run, "trials")

    def dossiers(self, run: Document) -> list[Dossier]:
        """The dossiers of a run's first attempt in the order of their ends."""
        found = [Dossier.model_validate_json(self._read(key)) for key in self._listed(run, "dossier")]
        return sorted(found, key=lambda each: each.at)

    def contract(self, project: str, digest: str) -> ModelContract:
        """A published model's contract, which names graph, reference and data by their digests, without its project."""
        found = ModelContract.model_validate_json(self._read(f"{project}/{layout.model(digest)}/{CONTRACT_FILE}"))
        assert (found.project, found.digest) == (project, digest)
        return found.model_copy(update={"project": "", "project_uid": ""})

    def _read(self, key: str) -> bytes:
        content: bytes = self.client.get_object(Bucket=self.name, Key=key)["Body"].read()
        return content

    def _listed(self, run: Document, part: str) -> dict[str, datetime]:
        """Keys of a part of what an attempt wrote, and since when they are there."""
        prefix = f"{text(run, 'spec', 'project')}/{layout.attempt(uid_of(run), 1)}/{part}/"
        found = self.client.list_objects_v2(Bucket=self.name, Prefix=prefix)
        return {each["Key"]: each["LastModified"] for each in found.get("Contents", ())}


@contextmanager
def opened(team: Team) -> Iterator[Bucket]:
    """The team's bucket, with its own key."""
    with team.s3() as client:
        yield Bucket(team.name, client)
