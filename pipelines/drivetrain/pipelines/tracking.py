"""MLflow: the run's record and the registered version, kept by a child process.

Importing MLflow takes 4 to 5 s of CPU; in a process of its own it passes beside the work instead of before it. The
child reads one JSON request a line and answers one line; it ends when its parent does. An alias is only a mirror.
"""

import json
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Protocol, Self, TextIO

from drivetrain.api.errors import ReportedError
from drivetrain.api.image import VERSION
from drivetrain.api.names import NO_TELEMETRY, REVISION_ENV

if TYPE_CHECKING:
    from mlflow import MlflowClient

APPROVED_ALIAS: Final = "approved"
_RUN_TAG: Final = "drivetrain.run-uid"
_DIGEST_TAG: Final = "drivetrain.digest"
_TAG_LIMIT: Final = 5000
_PARAMETER_LIMIT: Final = 500
_BATCH: Final = 100
"""Parameters and tags that one request may hold."""
_METRIC_BATCH: Final = 1000


@dataclass(frozen=True, slots=True)
class Opening:
    """What is known when the run begins."""

    name: str
    """Of the experiment and the registered model; two namespaces must not share one."""
    run: str
    run_uid: str
    tags: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Registration:
    """What is recorded when the model is there."""

    source: str
    """Where it lies."""
    digest: str
    approved: bool
    data_version: str
    data_uri: str
    metrics: Mapping[str, float]
    params: Mapping[str, str]
    tags: Mapping[str, str]
    trials: tuple[Mapping[str, float], ...] = ()
    """Each trial's metrics on the validation rows, in order."""


class Registry(Protocol):
    """Where runs and versions are registered. Failures raise ReportedError: TrackingFailed."""

    def open(self, opening: Opening, heard: Callable[[str], None]) -> None:
        """Begins the run's record, in the background; `heard` is told its id. Again for the same run: the same id."""
        ...

    def opened(self) -> None:
        """Waits until `heard` was told."""
        ...

    def register(self, registration: Registration) -> str:
        """Records what was found and registers the version; its number. Again for the same run: the same version."""
        ...

    def close(self, status: str, why: str = "") -> None:
        """Ends the record, if there is one: FINISHED or FAILED."""
        ...


class Tracking:
    """MLflow behind a pipe; requests are answered in order. Failures raise ReportedError: TrackingFailed."""

    def __init__(self, uri: str) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-m", "drivetrain.pipelines.tracking", uri],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # MLflow's thread of telemetry changes os.environ while a request of its own walks it.
            env={**os.environ, **NO_TELEMETRY},
        )
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="tracking")
        self._opened: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._child.terminate()
        self._pool.shutdown(wait=True)
        self._child.wait()

    def open(self, opening: Opening, heard: Callable[[str], None]) -> None:
        self._opened = self._pool.submit(lambda: heard(self._call("open", asdict(opening))))

    def opened(self) -> None:
        assert self._opened is not None, "open comes first"
        self._opened.result()

    def register(self, registration: Registration) -> str:
        self.opened()
        return self._pool.submit(self._call, "register", asdict(registration)).result()

    def close(self, status: str, why: str = "") -> None:
        if self._opened is not None:
            self._pool.submit(self._call, "close", {"status": status, "why": why[:_TAG_LIMIT]}).result()

    def _call(self, method: str, arguments: Mapping[str, Any]) -> str:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        try:
            self._child.stdin.write(json.dumps({"method": method, "arguments": arguments}) + "\n")
            self._child.stdin.flush()
            answer = json.loads(self._child.stdout.readline())
        except (OSError, ValueError) as error:
            raise ReportedError(
                "TrackingFailed", f"The MLflow client ended with exit code {self._child.poll()}.", remedy="See its log."
            ) from error
        if "error" in answer:
            raise ReportedError("TrackingFailed", f"MLflow: {answer['error']}", remedy="Check spec.tracking.uri.")
        return str(answer["result"])


class _Record:
    """The child's side: one MLflow run."""

    def __init__(self, client: "MlflowClient") -> None:
        self._client = client
        self._name = ""
        self._run_id = ""

    def open(self, arguments: dict[str, Any]) -> str:
        """Finds the run of this uid, so that attempts share it, or creates it."""
        opening = Opening(**arguments)
        self._name = opening.name
        experiment = self._client.get_experiment_by_name(opening.name)
        experiment_id = experiment.experiment_id if experiment else self._client.create_experiment(opening.name)
        found = self._client.search_runs([experiment_id], f"tags.`{_RUN_TAG}` = '{opening.run_uid}'", max_results=1)
        if found:
            self._run_id = found[0].info.run_id
            self._client.update_run(self._run_id, status="RUNNING")
        else:
            tags = {**opening.tags, **_code(), _RUN_TAG: opening.run_uid}
            created = self._client.create_run(experiment_id, run_name=opening.run, tags=_bounded(tags))
            self._run_id = created.info.run_id
            self._log({}, opening.params, {})
        return self._run_id

    def register(self, arguments: dict[str, Any]) -> str:
        """Metrics, data set and version of a finished model."""
        done = Registration(**arguments)
        self._log(done.metrics, done.params, done.tags)
        self._log_trials(done.trials)
        self._log_dataset(done)
        return self._version(done)

    def close(self, arguments: dict[str, Any]) -> str:
        """Ends the run."""
        if arguments["why"]:
            self._client.set_tag(self._run_id, "drivetrain.why", arguments["why"])
        self._client.set_terminated(self._run_id, status=arguments["status"])
        return ""

    def _log(self, metrics: Mapping[str, float], params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        from mlflow.entities import Metric, Param, RunTag

        now = time.time_ns() // 1_000_000
        metric_list = [Metric(_metric_name(name), value, now, 0) for name, value in metrics.items()]
        # Parameters cannot change: a second attempt, which has the same ones, must not send others.
        known = self._client.get_run(self._run_id).data.params if params else {}
        param_list = [
            Param(name, value[:_PARAMETER_LIMIT]) for name, value in params.items() if known.get(name) is None
        ]
        tag_list = [RunTag(name, value) for name, value in _bounded(tags).items()]
        while metric_list or param_list or tag_list:
            self._client.log_batch(self._run_id, metric_list[:_BATCH], param_list[:_BATCH], tag_list[:_BATCH])
            del metric_list[:_BATCH], param_list[:_BATCH], tag_list[:_BATCH]

    def _log_trials(self, trials: Sequence[Mapping[str, float]]) -> None:
        from mlflow.entities import Metric

        now = time.time_ns() // 1_000_000
        points = [
            Metric(_metric_name(f"trial.{name}"), value, now, step)
            for step, trial in enumerate(trials)
            for name, value in trial.items()
        ]
        for first in range(0, len(points), _METRIC_BATCH):
            self._client.log_batch(self._run_id, points[first : first + _METRIC_BATCH])

    def _log_dataset(self, done: Registration) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(
            name=f"{self._name} rows",
            digest=done.data_version,
            source_type="dvc",
            source=json.dumps({"uri": done.data_uri}),
        )
        tag = InputTag("mlflow.data.context", "training")
        self._client.log_inputs(self._run_id, datasets=[DatasetInput(dataset, tags=[tag])])

    def _version(self, done: Registration) -> str:
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(self._name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        known = [
            version
            for version in self._client.search_model_versions(f"run_id = '{self._run_id}'")
            if version.tags.get(_DIGEST_TAG) == done.digest
        ]
        version = (
            known[0]
            if known
            else self._client.create_model_version(
                self._name,
                source=done.source,
                run_id=self._run_id,
                tags=_bounded({**done.tags, _DIGEST_TAG: done.digest}),
            )
        )
        if done.approved:
            self._client.set_registered_model_alias(self._name, APPROVED_ALIAS, version.version)
        return str(version.version)


def serve(uri: str, requests: TextIO, answers: TextIO) -> None:
    """Answers requests until they end."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    record = _Record(MlflowClient(tracking_uri=uri))
    methods: dict[str, Callable[[dict[str, Any]], str]] = {
        "open": record.open,
        "register": record.register,
        "close": record.close,
    }
    for line in requests:
        request = json.loads(line)
        try:
            answer = {"result": methods[request["method"]](request["arguments"])}
        except MlflowException as error:
            answer = {"error": str(error)[:1000]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _code() -> dict[str, str]:
    """Which code runs: the release, and the revision, which an image names and a checkout knows."""
    tags = {"drivetrain.release": VERSION}
    revision = os.environ.get(REVISION_ENV, "") or _checked_out()
    if revision:
        tags["mlflow.source.git.commit"] = revision
    return tags


def _checked_out() -> str:
    git = shutil.which("git")
    if git is None:
        return ""
    said = subprocess.run(
        [git, "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return said.stdout.strip() if said.returncode == 0 else ""


def _bounded(tags: Mapping[str, str]) -> dict[str, str]:
    return {name: value[:_TAG_LIMIT] for name, value in tags.items()}


def _metric_name(name: str) -> str:
    """MLflow allows letters, digits, and _ - . / space and colon."""
    return "".join(letter if letter.isalnum() or letter in "_-./ :" else "_" for letter in name)[:250]


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    os.nice(10)  # whoever trains goes first
    # MLflow prints; what it prints must not get between the answers.
    channel, sys.stdout = sys.stdout, sys.stderr
    serve(sys.argv[1], sys.stdin, channel)
