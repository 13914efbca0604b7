"""How a driver talks back: one key of the run's report ConfigMap, server-side applied, with a heartbeat.

The Pod's token may get and patch that one ConfigMap. A beat that fails is tried again with the next one; only the final
report insists. What is written is bounded, so that a report never outgrows what the operator accepts.
"""

import json
import logging
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Protocol, Self, TypedDict

from drivetrain.api.documents import Document, annotations_of
from drivetrain.api.errors import ClusterError, FencedError, ForbiddenError, NotFoundError, UnavailableError
from drivetrain.api.names import INCARNATION_ANNOTATION, SERVICE_ACCOUNT_DIRECTORY, SERVICE_ACCOUNT_ENV
from drivetrain.api.report import REPORT_LIMIT, RunResult, TrainingReport
from drivetrain.api.v1alpha1.trainingrun import Progress
from drivetrain.pipelines.stage import StageName

_LOG = logging.getLogger(__name__)
HEARTBEAT: Final = 5.0
"""Seconds between two reports when nothing changes."""
_LEAST_PAUSE: Final = 0.5
"""Seconds between two reports at least: each is a write to the API server."""
_REQUEST_TIMEOUT: Final = 10.0
_FINAL_DEADLINE: Final = 60.0
_ETA_FROM: Final = 10
"""Percent done from which the time left is estimated."""
_SHARES: Final[dict[StageName, tuple[int, int]]] = {
    StageName.COLLECTION: (0, 10),
    StageName.FEATURES: (10, 15),
    StageName.SELECTION: (15, 20),
    StageName.TUNING: (20, 60),
    StageName.TRAINING: (60, 75),
    StageName.ENSEMBLES: (75, 85),
    StageName.EVALUATION: (85, 92),
    StageName.DEPLOYMENT: (92, 98),
    StageName.FEEDBACK: (98, 100),
}
"""Percent of the whole at which each stage begins and ends."""


class ReportSink(Protocol):
    """Where reports go."""

    def write(self, report: TrainingReport) -> None:
        """Makes the report visible. Raises ClusterError."""
        ...


class Reporter:
    """Keeps the report current; a context that beats from entry to exit. Methods are safe from any thread."""

    def __init__(
        self,
        sink: ReportSink,
        *,
        attempt: int,
        incarnation: int,
        clock: Callable[[], datetime],
        beat: float = HEARTBEAT,
        pause: float = _LEAST_PAUSE,
    ) -> None:
        self._sink, self._clock, self._beat, self._pause = sink, clock, beat, pause
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._changed = threading.Event()
        self._closing = threading.Event()
        self._started = time.monotonic()
        self._report = TrainingReport(attempt=attempt, incarnation=incarnation, sequence=0, at=clock())
        self._thread = threading.Thread(target=self._run, name="report", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._changed.set()
        self._thread.join()

    @property
    def report(self) -> TrainingReport:
        """What stands in the report now."""
        with self._lock:
            return self._report

    def began(self, stage: StageName) -> None:
        self.update(stage=str(stage), progress=self._progress(_SHARES[stage][0]))

    def advanced(self, stage: StageName, share: float) -> None:
        first, last = _SHARES[stage]
        self.update(progress=self._progress(first + round(share * (last - first))))

    def ended(self, stage: StageName, *, reused: bool, seconds: float) -> None:
        _LOG.info("%s %s in %.1f s", stage, "reused" if reused else "done", seconds)
        self.update(progress=self._progress(_SHARES[stage][1]))

    def update(self, **fields: Any) -> None:
        """Changes fields of the report; it is written soon."""
        with self._lock:
            self._report = self._report.model_copy(update=fields)
        self._changed.set()

    def finish(self, result: RunResult) -> None:
        """Writes the final report, again and again for a minute if need be. Raises ClusterError when it cannot."""
        self.update(result=result, progress=self._progress(100))
        deadline = time.monotonic() + _FINAL_DEADLINE
        while True:
            try:
                return self._write()
            except UnavailableError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(self._pause)

    def trials(self, done: int) -> None:
        """How many trials are finished."""
        with self._lock:
            progress = self._report.progress.model_copy(update={"trials_done": done})
        self.update(progress=progress)

    def _progress(self, percent: int) -> Progress:
        with self._lock:
            now = self._report.progress
        # Stages that were reused are passed in no time; percent never falls.
        reached = max(now.percent, min(percent, 100))
        elapsed = time.monotonic() - self._started
        eta = round(elapsed * (100 - reached) / reached) if reached >= _ETA_FROM else None
        return now.model_copy(update={"percent": reached, "eta_seconds": eta})

    def _run(self) -> None:
        while not self._closing.is_set():
            self._changed.wait(self._beat)
            self._changed.clear()
            if self._closing.is_set():
                return
            try:
                self._write()
            except ClusterError as error:
                _LOG.warning("the report was not written, the next beat tries again: %s", error)
            self._closing.wait(self._pause)

    def _write(self) -> None:
        with self._writing:
            with self._lock:
                self._report = self._report.model_copy(
                    update={"sequence": self._report.sequence + 1, "at": self._clock()}
                )
                report = self._report
            self._sink.write(report)


def bounded(report: TrainingReport) -> str:
    """The report as JSON of at most REPORT_LIMIT bytes: slices, then metrics, then gates are left out if need be."""
    for dropped in ((), ("slices",), ("slices", "metrics"), ("slices", "metrics", "gates")):
        text = report.model_copy(update={name: {} if name == "metrics" else () for name in dropped}).model_dump_json(
            by_alias=True, exclude_none=True
        )
        if len(text.encode()) <= REPORT_LIMIT:
            return text
    raise AssertionError("a report without lists is bounded by its fields")


class _Where(TypedDict):
    kind: str
    namespace: str
    name: str


class ConfigMapSink:
    """Server-side applies the report as one key, named after the Ray cluster, by a field manager of its own."""

    def __init__(
        self, *, server: str, namespace: str, name: str, key: str, token: Callable[[], str], ca_file: Path | None
    ) -> None:
        self._address = f"{server}/api/v1/namespaces/{namespace}/configmaps/{name}"
        self._namespace, self._name, self._key, self._token = namespace, name, key, token
        self._context = ssl.create_default_context(cafile=ca_file) if ca_file is not None else None

    def write(self, report: TrainingReport) -> None:
        document = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": self._name, "namespace": self._namespace},
            "data": {self._key: bounded(report)},
        }
        self._request(
            f"{self._address}?fieldManager=drivetrain-driver-{self._key}&force=true",
            "PATCH",
            json.dumps(document).encode(),
        )

    def incarnation(self) -> tuple[int, str]:
        """The number and the cluster that the operator expects now, (0, "") before it has said so."""
        text = annotations_of(self._request(self._address, "GET", None)).get(INCARNATION_ANNOTATION, "")
        number, _, cluster = text.partition(" ")
        return (int(number), cluster) if number.isdigit() else (0, "")

    def _request(self, address: str, method: str, body: bytes | None) -> Document:
        request = urllib.request.Request(  # noqa: S310 - the API server's address, from the Pod's environment
            address,
            data=body,
            method=method,
            headers={
                "Authorization": f"Bearer {self._token()}",
                "Content-Type": "application/apply-patch+yaml",
                "Accept": "application/json",
            },
        )
        where = _Where(kind="ConfigMap", namespace=self._namespace, name=self._name)
        try:
            with urllib.request.urlopen(request, timeout=_REQUEST_TIMEOUT, context=self._context) as answer:  # noqa: S310 - likewise
                document: Document = json.load(answer)
                return document
        except urllib.error.HTTPError as error:
            message = error.read(512).decode(errors="replace")
            if error.code == 404:
                raise NotFoundError(message, **where, status=404, remedy="The run was deleted.") from error
            if error.code in (401, 403):
                remedy = "Check the Role that the operator made for this run."
                raise ForbiddenError(message, **where, status=error.code, remedy=remedy) from error
            raise UnavailableError(message, **where, status=error.code, remedy="Try again later.") from error
        except (urllib.error.URLError, OSError) as error:
            raise UnavailableError(str(error), **where, status=0, remedy="Try again later.") from error


def sink_from(env: Mapping[str, str], *, namespace: str, name: str, cluster: str) -> ConfigMapSink:
    """The sink that the Pod's environment and mounted token lead to. Raises KeyError outside a cluster."""
    folder = Path(env.get(SERVICE_ACCOUNT_ENV, SERVICE_ACCOUNT_DIRECTORY))
    host = env["KUBERNETES_SERVICE_HOST"]
    return ConfigMapSink(
        server=f"https://{f'[{host}]' if ':' in host else host}:{env['KUBERNETES_SERVICE_PORT']}",
        namespace=namespace,
        name=name,
        key=cluster,
        token=lambda: (folder / "token").read_text().strip(),  # read anew: the kubelet rotates it
        ca_file=folder / "ca.crt",
    )


def await_incarnation(sink: ConfigMapSink, cluster: str, *, deadline: float, pause: float = 0.5) -> int:
    """The number with which this cluster may claim, once the operator names it.

    Raises FencedError when it names another one until the deadline (seconds), ClusterError.
    """
    until = time.monotonic() + deadline
    while True:
        try:
            number, expected = sink.incarnation()
        except UnavailableError:
            number, expected = 0, ""
            if time.monotonic() > until:
                raise
        if expected == cluster:
            return number
        if time.monotonic() > until:
            raise FencedError(
                f"The operator expects cluster {expected or '(none)'} and not {cluster}; this driver ends.",
                remedy="Nothing, if the run goes on elsewhere; else see the operator's log.",
            )
        time.sleep(pause)
