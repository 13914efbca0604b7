"""Every error that Drivetrain raises on purpose, under one base.

Foreign exceptions are translated where they enter; what a person can do about an error travels with it as `remedy`.
"""

from dataclasses import dataclass


class DrivetrainError(Exception):
    """Something went wrong that a person can act on: `message` says what, `remedy` what to do."""

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(f"{message} {remedy}".strip())
        self.message = message
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault of a manifest: the field, its cause and the remedy."""

    field: str
    cause: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.field}: {self.cause}" + (f" {self.remedy}" if self.remedy else "")


class InvalidSpecError(DrivetrainError):
    """A resource cannot mean what it says; found before anything is created."""

    reason = "InvalidSpec"

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("; ".join(str(problem) for problem in problems))
        self.problems = problems


class ExpressionError(DrivetrainError):
    """An expression cannot be parsed, typed or bounded; `position` counts characters from 0."""

    def __init__(self, message: str, *, position: int = 0, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.position = position


class ReportedError(DrivetrainError):
    """A live fault that a job or an endpoint reports back; `reason` becomes the reason of the Stalled condition."""

    def __init__(self, reason: str, message: str, *, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.reason = reason


class SourceError(ReportedError):
    """A data source does not exist, cannot be read, is empty, or breaks its contract."""


class ContractError(ReportedError):
    """The data as a whole does not support the declared project (one class, too few rows, too many slices)."""


class StoreError(ReportedError):
    """The object store refuses or does not answer."""


class ModelError(ReportedError):
    """A model version is unknown, altered, or not what its contract says."""


class ImageError(ReportedError):
    """The image does not hold the versions that the operator expects of it."""


class FencedError(DrivetrainError):
    """Another attempt or incarnation owns this work now; the holder must stop without committing."""


class ClusterError(DrivetrainError):
    """The Kubernetes API answered with an error, named by kind, namespace, name and HTTP status."""

    def __init__(self, message: str, *, kind: str, namespace: str, name: str, status: int, remedy: str = "") -> None:
        super().__init__(f"{kind} {namespace}/{name}: {message} (HTTP {status})", remedy=remedy)
        self.kind = kind
        self.namespace = namespace
        self.name = name
        self.status = status


class NotFoundError(ClusterError):
    """The object does not exist."""


class ConflictError(ClusterError):
    """The object changed since it was read, or a precondition failed; read again and decide again."""


class ForbiddenError(ClusterError):
    """The caller lacks the right, or a policy denies it."""


class RejectedError(ClusterError):
    """The API server refuses the object as invalid; sending it again cannot help."""


class UnavailableError(ClusterError):
    """The API server did not answer, or asks to try later; the request may have taken effect.

    `retry_after` is the wait that the server asks for, in seconds, 0 if it names none.
    """

    def __init__(
        self,
        message: str,
        *,
        kind: str,
        namespace: str,
        name: str,
        status: int,
        remedy: str = "",
        retry_after: float = 0.0,
    ) -> None:
        super().__init__(message, kind=kind, namespace=namespace, name=name, status=status, remedy=remedy)
        self.retry_after = retry_after


class ComponentError(DrivetrainError):
    """A component of the embedded mode cannot be found, built, started or kept running."""
