"""`drivetrain validate --live`: reads the sources with the person's keys and holds them against their contract."""

from collections.abc import Callable, Iterator, Mapping

from drivetrain.api.errors import DrivetrainError
from drivetrain.api.v1alpha1.dataset import Source
from drivetrain.api.v1alpha1.project import DrivetrainProject

Keys = Callable[[str], Mapping[str, str]]
"""The S3 keys of a Secret, by its name. Raises StoreError."""


def check_sources(project: DrivetrainProject, keys: Keys, *, endpoint: str | None) -> Iterator[tuple[str, bool]]:
    """Reads each source whole and joins them; yields what was found and whether it is well."""
    from drivetrain.pipelines.frame import assemble
    from drivetrain.pipelines.sources import SourceReader

    data = project.spec.data
    place = data.store.model_copy(update={"endpoint": data.store.endpoint or endpoint})
    sources = tuple(source for source in data.sources if source.format != "DecisionLog")
    tables = {}
    for source in sources:
        try:
            held = keys((source.credentials or data.store.credentials).secret_name) if _needs_keys(source) else {}
            tables[source.name] = SourceReader(place, held).read(source)
        except DrivetrainError as error:
            yield f"source {source.name}: {error}", False
        else:
            yield f"source {source.name}: {tables[source.name].height:,} rows at {source.uri}", True
    if not sources or len(tables) < len(sources):
        return
    try:
        rows = assemble(data.model_copy(update={"sources": sources}), tables).frame.height
    except DrivetrainError as error:
        yield f"contract: {error}", False
    else:
        yield f"contract: {rows:,} rows fit the declared columns", True


def _needs_keys(source: Source) -> bool:
    return source.uri is not None and source.uri.startswith("s3://")
