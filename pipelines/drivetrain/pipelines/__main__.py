"""The driver of a TrainingRun: reads its spec, claims its attempt, runs the line, reports, and says how it ended.

Exit codes: 0 a result was reported, Approved or Refused; 1 failed, another attempt may do better; 2 failed, and every
attempt would (a mistake in spec or data); 3 another attempt or incarnation owns the run; 143 told to stop.
"""

import json
import logging
import os
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from enum import IntEnum
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

from drivetrain.api.errors import (
    ClusterError,
    ContractError,
    DrivetrainError,
    ExpressionError,
    FencedError,
    InvalidSpecError,
    ModelError,
    Problem,
    ReportedError,
    SourceError,
    StoreError,
)
from drivetrain.api.meta import problems_of
from drivetrain.api.names import (
    ATTEMPT_ENV,
    CLUSTER_NAME_ENV,
    NAMESPACE_ENV,
    REPORT_ENV,
    SOURCES_ENV,
    SPEC_ENV,
    SPEC_KEY,
    TRACKING_ENV,
    WORK_ENV,
)
from drivetrain.api.report import RunResult
from drivetrain.api.runspec import RunSpec
from drivetrain.pipelines.attempt import Claim, Fence
from drivetrain.pipelines.reporting import Reporter, await_incarnation, sink_from

if TYPE_CHECKING:
    from drivetrain.pipelines.tracking import Tracking

_LOG = logging.getLogger("drivetrain.pipelines")
_INCARNATION_DEADLINE: Final = 120.0
_USERS_STORE_FAULTS: Final = frozenset({"CredentialsMissing", "CredentialsRejected", "BucketMissing"})
_TEXT_LIMIT: Final = 1024


class Exit(IntEnum):
    """How the process ends."""

    REPORTED = 0
    FAILED = 1
    MISTAKE = 2
    FENCED = 3


class StoppedError(BaseException):
    """SIGTERM: leave at once, commit nothing."""


def failure(error: Exception) -> RunResult:
    """The result of a run that ended in `error`; permanent when another attempt would end alike."""
    permanent = isinstance(error, SourceError | ContractError | InvalidSpecError | ExpressionError | ModelError) or (
        isinstance(error, StoreError) and error.reason in _USERS_STORE_FAULTS
    )
    match error:
        case ReportedError(reason=reason):
            named = reason
        case InvalidSpecError() | ExpressionError():
            named = InvalidSpecError.reason
        case ClusterError():
            named = "ClusterUnavailable"
        case DrivetrainError():
            named = type(error).__name__.removesuffix("Error")
        case _:
            named = "InternalError"
    text = str(error) if isinstance(error, DrivetrainError) else f"{type(error).__name__}: {error}"
    return RunResult(state="Failed", reason=named, message=text[:_TEXT_LIMIT], permanent=permanent)


def read_spec(env: Mapping[str, str]) -> RunSpec:
    """The mounted run spec. Raises InvalidSpecError naming each field that does not fit."""
    path = Path(env[SPEC_ENV])
    try:
        document = json.loads((path / SPEC_KEY if path.is_dir() else path).read_bytes())
    except ValueError as error:
        raise InvalidSpecError((Problem("", f"The run spec is no JSON: {error}."),)) from error
    try:
        return RunSpec.model_validate(document)
    except ValidationError as error:
        raise InvalidSpecError(problems_of(error, document)) from error


def main() -> int:
    """Runs one attempt in this process, with all that the operator rendered in the environment."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    signal.signal(signal.SIGTERM, _stop)
    env = dict(os.environ)
    cluster = env[CLUSTER_NAME_ENV]
    sink = sink_from(env, namespace=env[NAMESPACE_ENV], name=env[REPORT_ENV], cluster=cluster)
    try:
        number = await_incarnation(sink, cluster, deadline=_INCARNATION_DEADLINE)
        claim = Claim(int(env[ATTEMPT_ENV]), number, cluster)
        with Reporter(sink, attempt=claim.attempt, incarnation=claim.incarnation, clock=_clock) as reporter:
            started = time.monotonic()
            result = _result(env, claim, reporter)
            reporter.finish(result)
            _LOG.info("%s in %.1f s. %s", result.state, time.monotonic() - started, result.message)
    except FencedError as error:
        _LOG.warning("%s", error)
        return Exit.FENCED
    except ClusterError as error:
        _LOG.error("the report cannot be written: %s", error)
        return Exit.FAILED
    except StoppedError:
        _LOG.warning("told to stop; nothing is committed from here on")
        return 128 + signal.SIGTERM
    if result.state != "Failed":
        return Exit.REPORTED
    return Exit.MISTAKE if result.permanent else Exit.FAILED


def _result(env: Mapping[str, str], claim: Claim, reporter: Reporter) -> RunResult:
    """Runs the line; every failure but a lost fence becomes a result that says what to do."""
    try:
        return _run(read_spec(env), env, claim, reporter)
    except FencedError:
        raise
    except DrivetrainError as error:
        _LOG.error("%s", error)
        return failure(error)
    except Exception as error:
        _LOG.exception("the line failed in a way that it does not know")
        return failure(error)


def _run(spec: RunSpec, env: Mapping[str, str], claim: Claim, reporter: Reporter) -> RunResult:
    from drivetrain.pipelines.driver import Setting, drive, local_trials, opening_of
    from drivetrain.pipelines.sources import SourceReader
    from drivetrain.pipelines.tracking import Tracking
    from drivetrain.store import open_store

    work = Path(env[WORK_ENV]) / "runs" / spec.run_uid / f"{claim.attempt}.{claim.incarnation}"
    work.mkdir(parents=True, exist_ok=True)
    tracking_uri = spec.tracking_uri or env.get(TRACKING_ENV) or f"sqlite:///{work.parent}/mlflow.db"
    store = open_store(spec.data.store, env)
    fence = Fence(store, spec.run_uid, claim)
    with ExitStack() as stack:
        tracking = stack.enter_context(Tracking(tracking_uri, opening_of(spec)))
        setting = Setting(
            store=store,
            reader=SourceReader(spec.data.store, env, Path(env[SOURCES_ENV]) if SOURCES_ENV in env else None),
            work=work,
            attempt=claim.attempt,
            guard=fence,
            audience=reporter,
            tracking=tracking,
            trials=local_trials,
            now=_clock(),
        )
        try:
            result = drive(spec, setting).result
        except DrivetrainError as error:
            if failure(error).permanent:
                _close_failed(tracking, error)
            raise
        tracking.close("FINISHED")
        fence.check()
        return result


def _close_failed(tracking: "Tracking", error: DrivetrainError) -> None:
    """Marks the MLflow run; when MLflow fails too, the first error is the one to report."""
    try:
        tracking.close("FAILED", str(error))
    except ReportedError as second:
        _LOG.warning("%s", second)


def _clock() -> datetime:
    return datetime.now(UTC)  # noqa: TID251 - the edge: everything below takes the time as an argument


def _stop(number: int, frame: FrameType | None) -> None:
    raise StoppedError


if __name__ == "__main__":
    sys.exit(main())
