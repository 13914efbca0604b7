"""Which of several Deployments of one project serves it."""

from drivetrain.api.documents import Document, text, uid_of


def eldest(deployments: tuple[Document, ...]) -> Document | None:
    """The oldest by creationTimestamp, then by uid; those being deleted do not count."""
    living = [each for each in deployments if not text(each, "metadata", "deletionTimestamp")]
    return min(living, key=lambda each: (text(each, "metadata", "creationTimestamp"), uid_of(each)), default=None)
