"""Stage 1: collect the rows, hold them against their contract, and make them a data version that the run is pinned to.

A run's pin (`runs/<uid>/watermark`, `runs/<uid>/data-version`) is written once: all its attempts learn from the same
rows, whatever came to the sources in between.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from drivetrain.api.canonical import Hashable, canonical_json
from drivetrain.api.runspec import RunSpec
from drivetrain.pipelines import feedback, versions
from drivetrain.pipelines.frame import assemble
from drivetrain.pipelines.sources import SourceReader
from drivetrain.pipelines.split import split
from drivetrain.pipelines.stage import Guard, StageName, StageRunner
from drivetrain.pipelines.versions import DataVersion
from drivetrain.store import ObjectStore, S3Store


@dataclass(frozen=True, slots=True)
class Collection:
    """Sources and matured log to a data version; equal fingerprints of all sources reuse it."""

    spec: RunSpec
    store: ObjectStore
    reader: SourceReader
    watermark: datetime
    now: datetime
    fingerprints: dict[str, str]
    guard: Guard
    sample: int | None = None
    """Rows kept of each source, for the proof of concept."""

    name = StageName.COLLECTION
    code = 1

    def inputs(self) -> Hashable:
        data = self.spec.data
        return {
            "sources": [source.model_dump(mode="json") for source in data.sources],
            "fingerprints": self.fingerprints,
            "columns": [column.model_dump(mode="json") for column in data.columns if column.role != "Derived"],
            "target": data.target.model_dump(mode="json"),
            "unit": self.spec.objective.unit,
            "whenMissing": self.spec.objective.kpi.when_missing,
            "sample": self.sample,
        }

    def run(self, advance: Callable[[float], None]) -> DataVersion:
        data = self.spec.data
        tables = {}
        for done, source in enumerate(data.sources):
            if source.format == "DecisionLog":
                table = feedback.snapshot(self.store, source, data, self.spec.objective, self.watermark)
            else:
                table = self.reader.read(source)
            sampled = self.sample is not None and source.join_on is None and table.height > self.sample
            tables[source.name] = table.sample(self.sample, seed=1) if sampled else table
            advance(0.8 * (done + 1) / len(data.sources))
        collected = assemble(data, tables)
        # Data that no model can be learned from is refused while there is still no version of it.
        split(collected.frame, "", data, self.spec.objective.unit, self.spec.spec.window)
        manifest = replace(
            versions.describe(
                collected.frame, sources=collected.rows_by_source, created=self.now, project=self.spec.project
            ),
            watermark=self.watermark.isoformat(),
            left_out=collected.left_out,
        )
        self.guard.check()
        place = data.store if isinstance(self.store, S3Store) else None
        return versions.write(self.store, place, collected.frame, manifest)

    def save(self, output: DataVersion, folder: Path) -> None:
        (folder / "version.json").write_text(canonical_json({"md5": output.md5, "rows": output.rows}))

    def load(self, folder: Path) -> DataVersion:
        return DataVersion(**json.loads((folder / "version.json").read_text()))


def resolve(
    spec: RunSpec, reader: SourceReader, stages: StageRunner, *, now: datetime, sample: int | None = None
) -> DataVersion:
    """The data version that the run is pinned to, made when it is `newest` and nobody has made it yet.

    Raises SourceError, ContractError, StoreError, FencedError.
    """
    store = stages.store
    if spec.spec.data_version != "newest":
        return DataVersion(spec.spec.data_version, versions.manifest_of(store, spec.spec.data_version).rows)
    pin = f"runs/{spec.run_uid}"
    pinned = store.head(f"{pin}/data-version")
    if pinned is not None:
        return DataVersion(**json.loads(store.get(pinned.key)))
    matured = now - spec.objective.kpi.matures_after
    chosen = datetime.fromisoformat(spec.matures_before) if spec.matures_before else matured
    watermark = datetime.fromisoformat(_once(store, f"{pin}/watermark", chosen.isoformat()))
    found = stages.run(
        Collection(
            spec=spec,
            store=store,
            reader=reader,
            watermark=watermark,
            now=now,
            fingerprints=_fingerprints(spec, store, reader, watermark),
            guard=stages.guard,
            sample=sample,
        )
    )
    stages.guard.check()
    return DataVersion(
        **json.loads(_once(store, f"{pin}/data-version", canonical_json({"md5": found.md5, "rows": found.rows})))
    )


def _fingerprints(spec: RunSpec, store: ObjectStore, reader: SourceReader, watermark: datetime) -> dict[str, str]:
    """What each source holds now. A log without decisions is the same at every watermark."""
    found = {}
    for source in spec.data.sources:
        if source.format == "DecisionLog":
            grown = feedback.fingerprint(store)
            found[source.name] = f"{grown} until {watermark.isoformat()}" if grown != feedback.EMPTY else grown
        else:
            found[source.name] = reader.fingerprint(source)
    return found


def _once(store: ObjectStore, key: str, text: str) -> str:
    """What was written first under the key: `text`, unless someone came before."""
    return text if store.put_if_absent(key, text.encode()) else store.get(key).decode()
