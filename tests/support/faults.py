"""What can go wrong between a controller and its API server, one hook for each sort."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from drivetrain.api.kinds import Kind, Ref
from drivetrain.controller.cluster.port import WatchEvent


class Crash(BaseException):
    """The process under test dies here; no `except Exception` survives it."""


class Faults(Protocol):
    """What goes wrong, and when. Hooks that raise decide what the caller sees."""

    def before_write(self, verb: str, ref: Ref) -> None:
        """Raise a Crash or a ClusterError to keep the write from happening."""

    def after_write(self, verb: str, ref: Ref) -> None:
        """Raise a Crash or an UnavailableError although the write has happened."""

    def staleness(self, verb: str, kind: Kind) -> int:
        """Return by how many resource versions a get or a list is late."""

    def deliver(self, event: WatchEvent) -> Sequence[WatchEvent]:
        """Return what a watcher sees of this event: nothing, twice, or together with events held back earlier."""


class NoFaults:
    """Nothing goes wrong."""

    def before_write(self, verb: str, ref: Ref) -> None:
        """See Faults."""

    def after_write(self, verb: str, ref: Ref) -> None:
        """See Faults."""

    def staleness(self, verb: str, kind: Kind) -> int:
        """See Faults."""
        return 0

    def deliver(self, event: WatchEvent) -> Sequence[WatchEvent]:
        """See Faults."""
        return (event,)


@dataclass(frozen=True, slots=True)
class Struck:
    """A write that the faults may strike: before it, and after it if it happened."""

    faults: Faults
    verb: str
    ref: Ref

    def __enter__(self) -> None:
        self.faults.before_write(self.verb, self.ref)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.faults.after_write(self.verb, self.ref)
