"""What commands read through: a person's session with a cluster, or a test's."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from pydantic import ValidationError

from drivetrain.api.documents import Document, name_of
from drivetrain.api.errors import (
    DrivetrainError,
    ForbiddenError,
    InvalidSpecError,
    NotFoundError,
    UnavailableError,
)
from drivetrain.api.kinds import EVENT, GROUP, Kind, Ref
from drivetrain.api.meta import Resource

R = TypeVar("R", bound=Resource)
_SAME_VERSION = "Use the version of `drivetrain` that belongs to the operator; `drivetrain doctor` compares them."


class Reader(Protocol):
    """Reads with one person's rights. Raises the ClusterErrors of drivetrain.api.errors."""

    @property
    def namespace(self) -> str:
        """Where names live that say nothing else."""

    def get(self, ref: Ref) -> Document | None:
        """The object, or None."""

    def list(
        self, kind: Kind, labels: Mapping[str, str] | None = None, *, namespace: str | None = None
    ) -> tuple[Document, ...]:
        """All objects of a kind in a namespace: the reader's own when None, all of them when empty."""

    def serves(self, kind: Kind) -> bool:
        """Whether the API server knows the kind."""

    def events(self, namespace: str, uid: str) -> tuple[Document, ...]:
        """The events about one object."""


@dataclass(frozen=True, slots=True)
class Permitted:
    """Reads what can be read. None where it cannot be, noted in `unread`; nothing where it is not there.

    Raises UnavailableError for kinds of ours and of the core; others may fail alone, as where the Webhook that converts
    them is down.
    """

    reader: Reader
    unread: list[str] = field(default_factory=list)

    def one(self, ref: Ref, what: str = "") -> tuple[Document, ...] | None:
        """The object, if it is there."""
        try:
            found = self.reader.get(ref)
        except (ForbiddenError, UnavailableError) as error:
            self._note(what or str(ref), f"get {_place(ref.kind, ref.namespace)}", ref.kind, error)
            return None
        return () if found is None else (found,)

    def all(
        self, kind: Kind, labels: Mapping[str, str] | None = None, *, namespace: str, what: str = ""
    ) -> tuple[Document, ...] | None:
        """All objects of a kind in a namespace, in all of them where it is empty."""
        try:
            return self.reader.list(kind, labels, namespace=namespace)
        except NotFoundError:  # the kind is not served
            return ()
        except (ForbiddenError, UnavailableError) as error:
            self._note(what or kind.plural, f"list {_place(kind, namespace)}", kind, error)
            return None

    def events(self, namespace: str, uid: str) -> tuple[Document, ...]:
        """The events about an object, as far as they may be read."""
        try:
            return self.reader.events(namespace, uid)
        except (ForbiddenError, UnavailableError) as error:
            self._note("events", f"list {_place(EVENT, namespace)}", EVENT, error)
            return ()

    def _note(self, what: str, asked: str, kind: Kind, error: ForbiddenError | UnavailableError) -> None:
        if isinstance(error, UnavailableError) and kind.group in ("", GROUP):
            raise error
        why = error.message if isinstance(error, UnavailableError) else f"you may not {asked}"
        if (told := f"{what}: {why}") not in self.unread:
            self.unread.append(told)


def _place(kind: Kind, namespace: str) -> str:
    return f"{kind.plural} in namespace {namespace}" if namespace else kind.plural


def parsed(model: type[R], document: Document) -> R:
    """The typed resource. Raises DrivetrainError for an object that this version does not understand."""
    try:
        return model.parse(document)
    except InvalidSpecError as error:
        raise DrivetrainError(
            f"{model.__name__} {name_of(document)} cannot be read by this version: {error.message}.",
            remedy=_SAME_VERSION,
        ) from error


@contextmanager
def understood(what: str) -> Iterator[None]:
    """Raises DrivetrainError for records below, ledgers and dossiers, that this version does not understand."""
    try:
        yield
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        told = f"{what} cannot be read by this version: {'.'.join(map(str, first['loc']))}: {first['msg']}."
        raise DrivetrainError(told, remedy=_SAME_VERSION) from error


def existing(reader: Reader, kind: Kind, name: str) -> Document:
    """The object of that name in the reader's namespace. Raises DrivetrainError that names those that exist."""
    found = reader.get(Ref(kind, reader.namespace, name))
    if found is None:
        raise missing(kind, name, f"namespace {reader.namespace}", map(name_of, reader.list(kind)))
    return found


def missing(kind: Kind, name: str, place: str, known: Iterable[str]) -> DrivetrainError:
    """The error of a name that is not there, with those that are."""
    there = ", ".join(sorted(set(known))) or "none"
    return DrivetrainError(f"There is no {kind.kind} {name} in {place}.", remedy=f"There are: {there}.")
