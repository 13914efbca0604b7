"""The driver of a TrainingRun: reads its spec, claims its attempt, runs the line, reports, and says how it ended.

Exit codes: 0 a result was reported, Approved or Refused; 1 failed, another attempt may do better; 2 failed, and every
attempt would (a mistake in spec or data); 3 another attempt or incarnation owns the run; 143 told to stop.
"""

import importlib
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

from drivetrain.api import image
from drivetrain.api.errors import (
    ClusterError,
    ContractError,
    DrivetrainError,
    ExpressionError,
    FencedError,
    ImageError,
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
    UNTIL_DATA,
    WORK_ENV,
)
from drivetrain.api.report import RunResult
from drivetrain.api.runspec import RunSpec
from drivetrain.pipelines.attempt import Claim, Fence
from drivetrain.pipelines.reporting import Reporter, await_incarnation, sink_from
from drivetrain.pipelines.stage import emptied

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from drivetrain.pipelines.tracking import Tracking
    from drivetrain.pipelines.work import TrialRunner

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
    mistakes = SourceError | ContractError | InvalidSpecError | ExpressionError | ModelError | ImageError
    permanent = isinstance(error, mistakes) or (isinstance(error, StoreError) and error.reason in _USERS_STORE_FAULTS)
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
    started = time.monotonic()
    try:
        with ExitStack() as stack:
            work = _prepare(env, stack)
            number = await_incarnation(sink, cluster, deadline=_INCARNATION_DEADLINE)
            claim = Claim(int(env[ATTEMPT_ENV]), number, cluster)
            reporter = Reporter(sink, attempt=claim.attempt, incarnation=claim.incarnation, clock=_clock)
            with reporter:
                result = _result(work, env, claim, reporter)
                reporter.finish(result)
            _close(work, result)
    except FencedError as error:
        _LOG.warning("%s", error)
        return Exit.FENCED
    except ClusterError as error:
        _LOG.error("the report cannot be written: %s", error)
        return Exit.FAILED
    except StoppedError:
        _LOG.warning("told to stop; nothing is committed from here on")
        return 128 + signal.SIGTERM
    _LOG.info("%s in %.1f s. %s", result.state, time.monotonic() - started, result.message)
    if result.state != "Failed":
        return Exit.REPORTED
    return Exit.MISTAKE if result.permanent else Exit.FAILED


@dataclass(frozen=True, slots=True)
class _Work:
    """A run whose spec can be read, with MLflow's client starting beside it."""

    spec: RunSpec
    tracking: "Tracking"


def _prepare(env: Mapping[str, str], stack: ExitStack) -> _Work | DrivetrainError:
    """What needs no claim: the image, the spec, MLflow's client, and the line's own imports, which take seconds of CPU.

    An image that does not fit and a mistake in the spec are returned, to be reported like any other fault.
    """
    try:
        image.check(env, image.found())
        spec = read_spec(env)
    except (ImageError, InvalidSpecError) as error:
        return error
    from drivetrain.pipelines.tracking import Tracking

    threading.Thread(target=importlib.import_module, args=("drivetrain.pipelines.modelling",), daemon=True).start()
    local = f"sqlite:///{_work_folder(env, spec)}/mlflow.db"
    tracking_uri = spec.tracking_uri or env.get(TRACKING_ENV) or local
    return _Work(spec, stack.enter_context(Tracking(tracking_uri)))


def _work_folder(env: Mapping[str, str], spec: RunSpec) -> Path:
    folder = Path(env[WORK_ENV]) / "runs" / spec.run_uid
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _result(work: _Work | DrivetrainError, env: Mapping[str, str], claim: Claim, reporter: Reporter) -> RunResult:
    """Runs the line; every failure but a lost fence becomes a result that says what to do."""
    try:
        if isinstance(work, DrivetrainError):
            raise work
        return _run(work, env, claim, reporter)
    except FencedError:
        raise
    except DrivetrainError as error:
        _LOG.error("%s", error)
        return failure(error)
    except Exception as error:
        _LOG.exception("the line failed in a way that it does not know")
        return failure(error)


def _run(work: _Work, env: Mapping[str, str], claim: Claim, reporter: Reporter) -> RunResult:
    from drivetrain.pipelines.driver import Setting, drive, prepare
    from drivetrain.pipelines.sources import SourceReader
    from drivetrain.store import open_store

    spec = work.spec
    store = open_store(spec.data.store, env)
    fence = Fence(store, spec.run_uid, claim)
    folder = emptied(_work_folder(env, spec) / fence.writer)
    setting = Setting(
        store=store,
        reader=SourceReader(spec.data.store, env, Path(env[SOURCES_ENV]) if SOURCES_ENV in env else None),
        work=folder,
        attempt=claim.attempt,
        guard=fence,
        audience=reporter,
        tracking=work.tracking,
        trials=lambda: _trials(spec, folder / "tune"),
        now=_clock(),
    )
    result = prepare(spec, setting) if UNTIL_DATA in sys.argv[1:] else drive(spec, setting).result
    fence.check()
    return result


def _trials(spec: RunSpec, folder: Path) -> "AbstractContextManager[TrialRunner]":
    from drivetrain.pipelines.ray_trials import ray_trials

    return ray_trials(folder, spec.spec.tuning.parallel_trials)


def _close(work: _Work | DrivetrainError, result: RunResult) -> None:
    """Ends MLflow's record, unless another attempt or part goes on with it. The result is reported already."""
    goes_on = result.state == "Prepared" or (result.state == "Failed" and not result.permanent)
    if isinstance(work, DrivetrainError) or goes_on:
        return
    try:
        if result.state == "Failed":
            work.tracking.close("FAILED", result.message)
        else:
            work.tracking.close("FINISHED")
    except ReportedError as error:
        _LOG.warning("the result is reported, but MLflow does not show it: %s", error)


def _clock() -> datetime:
    return datetime.now(UTC)  # noqa: TID251 - the edge: everything below takes the time as an argument


def _stop(number: int, frame: FrameType | None) -> None:
    raise StoppedError


if __name__ == "__main__":
    sys.exit(main())
