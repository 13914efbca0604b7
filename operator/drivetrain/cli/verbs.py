"""What a person asks of the loop now: annotations that the operator answers once and remembers by value."""

import secrets
from dataclasses import dataclass
from typing import Protocol

from drivetrain.api import names
from drivetrain.api.documents import Document
from drivetrain.api.errors import DrivetrainError
from drivetrain.api.kinds import DEPLOYMENT, DRIVETRAIN_PROJECT, TRAINING_RUN, Kind, Ref
from drivetrain.api.v1alpha1.deployment import Deployment
from drivetrain.api.v1alpha1.project import DrivetrainProject
from drivetrain.cli.reader import Reader, existing, parsed


class Session(Reader, Protocol):
    """What a verb needs of a person's session with a cluster."""

    def annotate(self, ref: Ref, annotation: str, value: str | None) -> Document:
        """Sets an annotation, or removes it."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What was written where."""

    ref: Ref
    annotation: str
    value: str | None


def retrain(session: Session, project: str) -> Asked:
    """Starts a training run with cause Manual."""
    return _ask(session, DRIVETRAIN_PROJECT, project, names.RETRAIN_ANNOTATION, secrets.token_hex(4))


def approve(session: Session, project: str) -> Asked:
    """Lets the version that awaits approval enter a rollout."""
    found = parsed(DrivetrainProject, existing(session, DRIVETRAIN_PROJECT, project))
    waiting = found.status.awaiting_approval
    if waiting is None:
        raise DrivetrainError(f"No version of {project} awaits approval.", remedy=f"See `drivetrain why {project}`.")
    return _ask(session, DRIVETRAIN_PROJECT, project, names.APPROVE_ANNOTATION, once(waiting.digest))


def promote(session: Session, deployment: str) -> Asked:
    """Makes the candidate stable at once, whatever the evidence."""
    return _ask(session, DEPLOYMENT, deployment, names.PROMOTE_ANNOTATION, once(_candidate(session, deployment)))


def abort(session: Session, deployment: str) -> Asked:
    """Ends the rollout; the candidate is remembered as rejected."""
    return _ask(session, DEPLOYMENT, deployment, names.ABORT_ANNOTATION, once(_candidate(session, deployment)))


def retry(session: Session, deployment: str) -> Asked:
    """Allows the newest rejected policy one more rollout."""
    rejected = parsed(Deployment, existing(session, DEPLOYMENT, deployment)).status.rejected
    if not rejected:
        raise DrivetrainError(f"{deployment} has rejected no policy.", remedy="There is nothing to try again.")
    return _ask(session, DEPLOYMENT, deployment, names.RETRY_ANNOTATION, once(rejected[0].hash))


def pause(session: Session, deployment: str) -> Asked:
    """Holds the rollout at its step."""
    return _ask(session, DEPLOYMENT, deployment, names.PAUSE_ANNOTATION, "true")


def resume(session: Session, deployment: str) -> Asked:
    """Lets a paused rollout go on."""
    return _ask(session, DEPLOYMENT, deployment, names.PAUSE_ANNOTATION, None)


def cancel(session: Session, run: str) -> Asked:
    """Stops a training run for good."""
    return _ask(session, TRAINING_RUN, run, names.CANCEL_ANNOTATION, secrets.token_hex(4))


def once(hash_: str) -> str:
    """The hash with a token: the operator answers each value once, and a person may ask the same again."""
    return f"{hash_}:{secrets.token_hex(4)}"


def _ask(session: Session, kind: Kind, name: str, annotation: str, value: str | None) -> Asked:
    existing(session, kind, name)
    ref = Ref(kind, session.namespace, name)
    session.annotate(ref, annotation, value)
    return Asked(ref, annotation, value)


def _candidate(session: Session, deployment: str) -> str:
    candidate = parsed(Deployment, existing(session, DEPLOYMENT, deployment)).status.candidate
    if candidate is None:
        raise DrivetrainError(f"{deployment} rolls nothing out.", remedy="There is nothing to promote or abort.")
    return candidate.hash
