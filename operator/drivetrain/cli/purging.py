"""`drivetrain purge`: removes what a deleted project left in its store."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from drivetrain.api.documents import name_of
from drivetrain.api.errors import DrivetrainError
from drivetrain.api.kinds import DEPLOYMENT, DRIVETRAIN_PROJECT, OWN_KINDS, POD, TRAINING_RUN, Ref
from drivetrain.api.layout import WRITTEN, location_of
from drivetrain.api.names import PROJECT_LABEL
from drivetrain.api.v1alpha1.project import DrivetrainProject
from drivetrain.cli.loops import project_named
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
    """What could not be checked.

    Raises DrivetrainError while the project, anything that belongs to it, or another project on the same store exists,
    and where the cluster cannot know.
    """
    namespace, name = project.metadata.namespace or reader.namespace, project.metadata.name
    if unknown := [kind.plural for kind in OWN_KINDS if not reader.serves(kind)]:
        raise DrivetrainError(
            f"This cluster does not know {', '.join(unknown)}, so it cannot say whether {namespace}/{name} is deleted.",
            remedy="Name the cluster in which it lived, by --context or --kubeconfig.",
        )
    if reader.get(Ref(DRIVETRAIN_PROJECT, namespace, name)) is not None:
        raise DrivetrainError(
            f"DrivetrainProject {namespace}/{name} still exists.",
            remedy=f"Delete it first: kubectl delete dtp {name} -n {namespace}.",
        )
    permitted = Permitted(reader)
    _check_outlived(permitted, namespace, name)
    found = permitted.all(DRIVETRAIN_PROJECT, namespace="")
    if found is None:
        found = permitted.all(DRIVETRAIN_PROJECT, namespace=namespace) or ()
    for each in (parsed(DrivetrainProject, document) for document in found):
        if overlap(project, each):
            store = each.spec.data.store
            at = f" at {store.endpoint}" if store.endpoint else ""
            raise DrivetrainError(
                f"DrivetrainProject {each.metadata.namespace}/{each.metadata.name} keeps its data in {store.uri}{at}: "
                "nothing was removed, as its objects cannot be told apart.",
                remedy="Delete that project first. If its endpoint is another store, remove the objects by hand.",
            )
    return tuple(permitted.unread)


def _check_outlived(permitted: Permitted, namespace: str, name: str) -> None:
    """Raises DrivetrainError while something works on the project's data without the project."""
    own = [
        f"{kind.plural}/{name_of(each)}"
        for kind in (TRAINING_RUN, DEPLOYMENT)
        for each in permitted.all(kind, namespace=namespace) or ()
        if project_named(each) == name
    ]
    if own:
        raise DrivetrainError(
            f"{', '.join(own)} of project {namespace}/{name} still exist and may use its data.",
            remedy=f"Delete them first: kubectl delete -n {namespace} {' '.join(own)}.",
        )
    if pods := permitted.all(POD, {PROJECT_LABEL: name}, namespace=namespace):
        raise DrivetrainError(
            f"Pods of project {namespace}/{name} still run or end: {', '.join(map(name_of, pods))}.",
            remedy=f"Wait until kubectl get pods -n {namespace} -l {PROJECT_LABEL}={name} shows none.",
        )


def overlap(one: DrivetrainProject, other: DrivetrainProject) -> bool:
    """Whether two projects' stores lie in one another, if their endpoints are the same store.

    One store has many addresses (a slash more, inside the cluster, a forwarded port), so endpoints tell nothing apart.
    """
    here, there = (f"{location_of(each.spec.data.store.uri).uri()}/" for each in (one, other))
    return here.startswith(there) or there.startswith(here)


def purge(store: ObjectStore, found: Remains) -> Iterator[int]:
    """Removes the objects; yields how many are gone, every hundred. Raises StoreError."""
    for count, key in enumerate(found.keys, 1):
        store.delete(key)
        if count % 100 == 0 or count == len(found.keys):
            yield count
