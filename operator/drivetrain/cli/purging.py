"""`drivetrain purge`: removes what a deleted project left in its store."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from drivetrain.api.errors import DrivetrainError
from drivetrain.api.kinds import DRIVETRAIN_PROJECT, Ref
from drivetrain.api.layout import WRITTEN
from drivetrain.api.v1alpha1.project import DrivetrainProject
from drivetrain.cli.reader import Permitted, Reader, parsed
from drivetrain.cli.wording import size
from drivetrain.store import ObjectStore

_WORDS = {"dvc": "data", "versions": "data versions", "log": "decisions and outcomes", "monitor": "the Monitor's state"}


@dataclass(frozen=True, slots=True)
class Remains:
    """What lies in the store."""

    uri: str
    keys: tuple[str, ...]
    bytes: int
    others: int
    """Objects below the prefix that no project wrote: they stay."""

    def lines(self) -> Iterator[str]:
        """In words, by what it is."""
        for folder, count in sorted(Counter(key.partition("/")[0] for key in self.keys).items()):
            yield f"{count:>8,}  {_WORDS.get(folder, folder)} ({folder}/)"
        yield f"{len(self.keys):>8,}  objects below {self.uri}, {size(self.bytes)}"
        if self.others:
            yield f"{self.others:>8,}  other objects below it stay: Drivetrain did not write them"


def remains(store: ObjectStore) -> Remains:
    """What a project left in its store. Raises StoreError."""
    keys: list[str] = []
    total = others = 0
    for info in store.list(""):
        if info.key.startswith(WRITTEN):
            keys.append(info.key)
            total += info.size
        else:
            others += 1
    return Remains(store.uri(), tuple(keys), total, others)


def check_deleted(reader: Reader, project: DrivetrainProject) -> tuple[str, ...]:
    """What could not be checked. Raises DrivetrainError while the project, or another one on the same store, exists."""
    namespace, name = project.metadata.namespace or reader.namespace, project.metadata.name
    if reader.get(Ref(DRIVETRAIN_PROJECT, namespace, name)) is not None:
        raise DrivetrainError(
            f"DrivetrainProject {namespace}/{name} still exists.",
            remedy=f"Delete it first: kubectl delete dtp {name} -n {namespace}.",
        )
    permitted = Permitted(reader)
    found = permitted.all(DRIVETRAIN_PROJECT, namespace="")
    if found is None:
        found = permitted.all(DRIVETRAIN_PROJECT, namespace=namespace) or ()
    for each in (parsed(DrivetrainProject, document) for document in found):
        if overlap(project, each):
            other = f"{each.metadata.namespace}/{each.metadata.name}"
            raise DrivetrainError(
                f"DrivetrainProject {other} lives in the same place: {each.spec.data.store.uri}.",
                remedy="Nothing was removed: its data cannot be told apart.",
            )
    return tuple(permitted.unread)


def overlap(one: DrivetrainProject, other: DrivetrainProject) -> bool:
    """Whether two projects' stores lie in one another, at the same endpoint."""
    first, second = one.spec.data.store, other.spec.data.store
    if (first.endpoint or "") != (second.endpoint or ""):
        return False
    here, there = (f"{each.uri.rstrip('/')}/" for each in (first, second))
    return here.startswith(there) or there.startswith(here)


def purge(store: ObjectStore, found: Remains) -> Iterator[int]:
    """Removes the objects; yields how many are gone, every hundred. Raises StoreError."""
    for count, key in enumerate(found.keys, 1):
        store.delete(key)
        if count % 100 == 0 or count == len(found.keys):
            yield count
