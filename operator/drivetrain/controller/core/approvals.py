"""The project's memory of its runs: what they registered, what may enter a rollout, and what became of it. Pure."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Literal

from drivetrain.api.documents import Document, name_of, text, value
from drivetrain.api.ledger import DeploymentLedger, ProjectLedger, RunLedger, StartedRun
from drivetrain.api.names import APPROVE_ANNOTATION
from drivetrain.api.v1alpha1.loop import Loop
from drivetrain.api.v1alpha1.trainingrun import TrainingRun
from drivetrain.controller.core.conditions import moment
from drivetrain.controller.core.policies import champion_of, same_version
from drivetrain.controller.core.rollout import names

RUNS_LIMIT = 50
COUNTED_LIMIT = 20
COUNTED_REASONS = ("Harm", "Inconclusive", "LoadFailed", "ShadowFailed")
"""Rejections that speak against the loop; an abort is a person's decision."""


def runs_to_read(ledger: ProjectLedger, runs: Iterable[Document]) -> tuple[str, ...]:
    """The runs whose own ledgers can still change or explain something here: not those that are over, judged and
    charged as their status says, or long past. Of those that were refused only the newest is explained."""
    known = {run.name: run for run in ledger.runs}
    explained = {run.name for run in ledger.runs[:1] if run.verdict == "Refused"}
    oldest = min((run.at for run in ledger.runs), default=None) if len(ledger.runs) >= RUNS_LIMIT else None
    wanted = []
    for document in runs:
        name = name_of(document)
        run = known.get(name)
        over = run is not None and run.finished and run.verdict and run.finished != "Deleted"
        if over and _charged(run, document) and name not in explained:
            continue
        created = moment(text(document, "metadata", "creationTimestamp"))
        if run is None and oldest is not None and created is not None and created < oldest:
            continue
        wanted.append(name)
    return tuple(wanted)


def _charged(run: StartedRun | None, document: Document) -> bool:
    """Whether the run's last GPU-seconds have arrived here: it holds its GPUs until its job has ended."""
    told = gpu_seconds(document)
    return run is not None and (told is None or abs(told - run.gpu_seconds) < 0.001)


def gpu_seconds(document: Document) -> float | None:
    """What a run's status says that it was charged, the job that runs included."""
    told = value(document, "status", "gpuSeconds")
    return told if isinstance(told, int | float) else None


def followed(
    ledger: ProjectLedger,
    runs: tuple[TrainingRun, ...],
    run_ledgers: Mapping[str, RunLedger],
    charged: Mapping[str, float],
    now: datetime,
) -> ProjectLedger:
    """Take over what the runs' own ledgers say; runs that a person created are recorded as Manual.

    `charged` are GPU-seconds by name of run, as statuses tell: ledgers have them only once a job has ended.
    """
    present = {run.metadata.name: run for run in runs}
    known = {run.name for run in ledger.runs}
    strangers = tuple(
        StartedRun(name=name, cause="Manual", at=run.metadata.creation_timestamp, seen=True)
        for name, run in sorted(present.items())
        if name not in known and name in run_ledgers and run.metadata.creation_timestamp is not None
    )
    merged = (
        _followed(run, run.name in present, run_ledgers.get(run.name), charged.get(run.name, 0.0), now)
        for run in (*strangers, *ledger.runs)
    )
    ordered = tuple(sorted(merged, key=lambda run: (run.at, run.name), reverse=True))[:RUNS_LIMIT]
    return ledger if ordered == ledger.runs else ledger.model_copy(update={"runs": ordered})


def _followed(run: StartedRun, present: bool, record: RunLedger | None, charged: float, now: datetime) -> StartedRun:
    update: dict[str, object] = {}
    if present and not run.seen:
        update |= {"seen": True, "evidence": {}, "window": None}
    if not present and run.seen and not run.finished:
        update |= {"finished": "Deleted", "ended_at": now}
    if present and record is not None:
        verdict = "Refused" if record.finished == "Refused" and not run.verdict else run.verdict
        update |= {
            "finished": record.finished,
            "ended_at": record.finished_at,
            "gpu_seconds": max(record.gpu_seconds, charged),
            "version": record.version.version if record.version else None,
            "digest": record.version.digest if record.version else None,
            "lever_effect": record.lever_effect,
            "verdict": verdict,
        }
    elif present and run.finished == "Deleted":
        update |= {"finished": "", "ended_at": None}
    return run.model_copy(update=update)


def judged(ledger: ProjectLedger, serving: DeploymentLedger | None, approved_hash: str | None) -> ProjectLedger:
    """Take over what the rollout decided about each version, and count rejections in a row.

    `approved_hash` is the policy that the approved version makes: a run that published the same graph as one that was
    rejected, or that serves, is judged with it, because no rollout will ever tell.
    """
    if serving is None or serving.stable is None:
        return ledger
    champion = champion_of(serving)
    runs, in_a_row = [], ledger.rejected_in_a_row
    for run in ledger.runs:
        verdict: Literal["", "Promoted", "Rejected", "Refused", "Superseded"] = run.verdict
        if same_version(run, champion):
            in_a_row = 0 if verdict != "Promoted" else in_a_row
            verdict = "Promoted"
        elif verdict != "Promoted" and any(same_version(run, each) for each in serving.rejected):
            verdict = "Rejected"
        elif verdict == "" and same_version(run, ledger.approved):
            if any(each.hash == approved_hash for each in serving.rejected):
                verdict = "Rejected"
            elif approved_hash == serving.stable.hash:
                verdict = "Superseded"
        runs.append(run.model_copy(update={"verdict": verdict}))
    causes = [next((run.cause for run in runs if same_version(run, each)), None) for each in serving.rejected]
    fresh = [
        (each, cause)
        for each, cause in zip(serving.rejected[:COUNTED_LIMIT], causes, strict=False)
        if each.hash not in ledger.counted_rejections and cause is not None and not same_version(each, champion)
    ]
    in_a_row += sum(cause != "Manual" and each.reason in COUNTED_REASONS for each, cause in fresh)
    counted = (*(each.hash for each, _ in fresh), *ledger.counted_rejections)[:COUNTED_LIMIT]
    return ledger.model_copy(update={"runs": tuple(runs), "rejected_in_a_row": in_a_row, "counted_rejections": counted})


def approved(ledger: ProjectLedger, run_ledgers: Mapping[str, RunLedger], loop: Loop, asked: str) -> ProjectLedger:
    """Let the newest version that passed its gates enter a rollout, with a person's consent where it is needed.

    `asked` is the value of the approve annotation that was not acted on yet: the digest of a version. The version
    waits in the project's own ledger, since its run may be deleted before a person has looked.
    """
    ledger = _awaiting(ledger, run_ledgers)
    version = ledger.awaiting_approval
    if version is None or (loop.approval == "Manual" and not names(asked, version.digest)):
        return ledger
    answered = {**ledger.answered, APPROVE_ANNOTATION: asked} if asked else ledger.answered
    return ledger.model_copy(update={"approved": version, "awaiting_approval": None, "answered": answered})


def _awaiting(ledger: ProjectLedger, run_ledgers: Mapping[str, RunLedger]) -> ProjectLedger:
    """The newest version that passed its gates and was not let in yet takes the place of all that wait."""
    passed: list[tuple[datetime, StartedRun, RunLedger]] = []
    for run in ledger.runs:
        record = run_ledgers.get(run.name)
        if record is None or record.finished != "Approved" or record.version is None or record.finished_at is None:
            continue
        if run.verdict == "":
            passed.append((record.finished_at, run, record))
    if not passed:
        return ledger
    _, newest, record = max(passed, key=lambda each: (each[0], each[1].name))
    version = record.version
    assert version is not None
    older = {run.name for _, run, _ in passed if run.name != newest.name}
    if older:
        runs = tuple(
            run.model_copy(update={"verdict": "Superseded"}) if run.name in older else run for run in ledger.runs
        )
        ledger = ledger.model_copy(update={"runs": runs})
    return ledger if ledger.approved == version else ledger.model_copy(update={"awaiting_approval": version})
