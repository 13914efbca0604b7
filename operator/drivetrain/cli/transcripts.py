"""`drivetrain logs`: what Pods say by this person's rights, else what the run's submitter kept."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote

from drivetrain.api.documents import Document, documents, labels_of, name_of, namespace_of, text, uid_of
from drivetrain.api.errors import (
    ClusterError,
    ComponentError,
    DrivetrainError,
    ForbiddenError,
    NotFoundError,
    StoreError,
)
from drivetrain.api.kinds import CONFIG_MAP, DEPLOYMENT, DRIVETRAIN_PROJECT, POD, RAY_JOB, TRAINING_RUN, Ref
from drivetrain.api.names import ATTEMPT_LABEL, OWNER_UID_LABEL, RUN_UID_LABEL, spec_name
from drivetrain.cli.inquiry import OpenStore, newest_dossier, subjects
from drivetrain.cli.reader import Reader, understood
from drivetrain.controller.core import records

if TYPE_CHECKING:
    from drivetrain.local.environment import Addresses

SUBMITTER = "ray-job-submitter"
"""The container that follows the driver's log."""
_SECONDS = 30.0
_PAUSE_SECONDS = 1.0


class Session(Reader, Protocol):
    """What reading logs needs of a person's session."""

    def log(self, pod: Ref, container: str, *, lines: int, follow: bool = False) -> Iterator[str]:
        """The last lines of a container's log."""


@dataclass(frozen=True, slots=True)
class Voice:
    """A container of a Pod."""

    pod: Ref
    container: str


@dataclass(frozen=True, slots=True)
class Transcripts:
    """Where the logs of one cluster are."""

    session: Session
    open_store: OpenStore
    local: "Addresses | None" = None
    """The environment on this machine, whose Pods have no logs of their own."""

    def of(self, name: str, *, lines: int, follow: bool) -> Iterator[str]:
        """The log of a run or a Deployment; of a project, that of its newest run. Raises DrivetrainError."""
        subject = self._subject(name)
        run = text(subject, "kind") == TRAINING_RUN.kind
        if run and self.local is not None:
            yield from self._of_ray(subject, self.local, lines, follow=follow)
            return
        label = RUN_UID_LABEL if run else OWNER_UID_LABEL
        told = False
        try:
            voices = speakers(self.session.list(POD, {label: uid_of(subject)}, namespace=namespace_of(subject)))
            for line in self._spoken(voices, lines=lines, follow=follow):
                told = True
                yield line
        except (ForbiddenError, NotFoundError) as error:
            if not run or told:
                raise
            yield f"# {error}"
            voices = ()
        if voices and not told:
            yield f"# {', '.join(voice.pod.name for voice in voices)} has written nothing yet"
        elif run and not told:
            with understood(f"What is kept of {name}"):
                yield from self._kept(subject, lines)
        elif not voices:
            raise DrivetrainError(f"{name} has no Pods.", remedy=f"See `drivetrain why {name}` for what it waits for.")

    def _subject(self, name: str) -> Document:
        found = {text(each, "kind"): each for each in subjects(self.session, name)}
        for kind in (TRAINING_RUN.kind, DEPLOYMENT.kind):
            if kind in found:
                return found[kind]
        last = text(found[DRIVETRAIN_PROJECT.kind], "status", "lastRun")
        run = self.session.get(Ref(TRAINING_RUN, self.session.namespace, last)) if last else None
        if run is None:
            raise DrivetrainError(f"{name} has no run yet.", remedy=f"See `drivetrain why {name}`.")
        return run

    def _spoken(self, voices: Sequence[Voice], *, lines: int, follow: bool) -> Iterator[str]:
        """One after the other; only a single one can be followed, so it is the newest."""
        for voice in voices[-1:] if follow else voices:
            prefix = f"[{voice.pod.name} {voice.container}] " if len(voices) > 1 and not follow else ""
            try:
                for line in self.session.log(voice.pod, voice.container, lines=lines, follow=follow):
                    yield f"{prefix}{line}"
            except ClusterError as error:
                if error.status != 400:  # a container that has not started has nothing to say yet
                    raise
                yield f"# {error.message}"

    def _kept(self, run: Document, lines: int) -> Iterator[str]:
        """The end of the driver's log as the newest dossier has it."""
        name, namespace = name_of(run), namespace_of(run)
        spec = records.run_spec(self.session.get(Ref(CONFIG_MAP, namespace, spec_name(name))))
        attempt = run.get("status")
        attempts = attempt.get("attempt") if isinstance(attempt, dict) else 0
        kept = None
        if spec is not None and isinstance(attempts, int):
            try:
                kept = newest_dossier(self.open_store(spec.data.store, namespace), uid_of(run), attempts)
            except StoreError as error:
                raise DrivetrainError(f"{name} has no Pods, and its dossier is out of reach. {error}") from error
        if kept is None:
            raise DrivetrainError(
                f"{name} has neither Pods nor a dossier.", remedy=f"See `drivetrain why {name}` for how it stands."
            )
        yield f"# {kept.uri}: {kept.dossier.ended} {kept.dossier.message}".rstrip()
        yield from kept.dossier.log.splitlines()[-lines:]

    def _of_ray(self, run: Document, local: "Addresses", lines: int, *, follow: bool) -> Iterator[str]:
        """The driver's log from the one Ray instance of the environment on this machine."""
        told = -1
        while True:
            job = self._job(run)
            submission = text(job, "status", "jobId")
            if not submission:
                raise DrivetrainError(f"{name_of(run)} has no job yet.", remedy=f"See `drivetrain why {name_of(run)}`.")
            log = _log_of(local, submission)
            yield from log[-lines:] if told < 0 else log[told:]
            told = len(log)
            if not follow or text(job, "status", "jobDeploymentStatus") in ("Complete", "Failed"):
                return
            time.sleep(_PAUSE_SECONDS)

    def _job(self, run: Document) -> Document:
        """The RayJob of the newest attempt."""
        jobs = self.session.list(RAY_JOB, {RUN_UID_LABEL: uid_of(run)}, namespace=namespace_of(run))
        newest = max(jobs, key=lambda job: (int(labels_of(job).get(ATTEMPT_LABEL, "0")), name_of(job)), default=None)
        return newest or {}


def _log_of(local: "Addresses", submission: str) -> list[str]:
    """What a driver has written so far. Raises ComponentError."""
    request = urllib.request.Request(  # noqa: S310 - the loopback address of `drivetrain up`
        f"{local.ray_dashboard}/api/jobs/{quote(submission)}/logs",
        headers={"Authorization": f"Bearer {local.ray_token}"},
    )
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS) as answer:  # noqa: S310 - likewise
            told = json.loads(answer.read())
    except urllib.error.HTTPError as error:
        raise ComponentError(
            f"Ray has no log of {submission} (HTTP {error.code}).", remedy="It was restarted since: train again."
        ) from error
    except OSError as error:
        raise ComponentError(f"Ray does not answer: {error}.", remedy="See `drivetrain components`.") from error
    return str(told.get("logs", "")).splitlines()


def speakers(pods: Sequence[Document]) -> tuple[Voice, ...]:
    """Whom to listen to: the newest attempt's submitter, which has the driver's log, else all; oldest first."""
    attempts = {name_of(pod): int(labels_of(pod).get(ATTEMPT_LABEL, "0")) for pod in pods}
    newest = max(attempts.values(), default=0)
    found = tuple(
        Voice(Ref(POD, namespace_of(pod), name_of(pod)), text(container, "name"))
        for pod in sorted(pods, key=lambda pod: (text(pod, "metadata", "creationTimestamp"), name_of(pod)))
        if attempts[name_of(pod)] == newest
        for container in documents(pod, "spec", "containers")
    )
    submitters = tuple(voice for voice in found if voice.container == SUBMITTER)
    return submitters or found
