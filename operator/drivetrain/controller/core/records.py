"""Records read back: ledgers, run specs, and reports, which are untrusted and count only where they fit."""

from typing import TypeVar

from pydantic import BaseModel, ValidationError

from drivetrain.api.documents import Document, documents, mapping, text, texts
from drivetrain.api.ledger import DeploymentLedger
from drivetrain.api.names import LEDGER_KEY, REVISION_LABEL, SPEC_KEY
from drivetrain.api.report import REPORT_LIMIT, ServingReport, TrainingReport
from drivetrain.api.runspec import RunSpec

M = TypeVar("M", bound=BaseModel)


def ledger(model: type[M], config_map: Document | None) -> M:
    """The ledger, or an empty one where none was written yet.

    Raises:
        ValidationError: somebody else wrote it; the reconcile fails and says so, rather than forget.
    """
    written = texts(config_map or {}, "data").get(LEDGER_KEY)
    return model.model_validate_json(written) if written else model()


def run_spec(config_map: Document | None) -> RunSpec | None:
    """The facts that a run was created with, if they were written."""
    written = texts(config_map or {}, "data").get(SPEC_KEY)
    return RunSpec.model_validate_json(written) if written else None


def training_report(config_map: Document | None, cluster: str | None) -> TrainingReport | None:
    """What the driver of this cluster reports; None where it says nothing that can be read."""
    return _report(TrainingReport, config_map, cluster)


def serving_report(config_map: Document | None, cluster: str | None) -> ServingReport | None:
    """What the Monitor of this cluster reports; None where it says nothing that can be read."""
    return _report(ServingReport, config_map, cluster)


def serving_cluster(service: Document | None) -> str | None:
    """RAY_CLUSTER_NAME of the cluster that serves in a RayService."""
    return text(service or {}, "status", "activeServiceStatus", "rayClusterName") or None


def clusters_of(service: Document | None) -> tuple[str, ...]:
    """Names of the RayClusters of a RayService: the one that serves, and the one that is being made ready."""
    parts = ("activeServiceStatus", "pendingServiceStatus")
    return tuple(name for part in parts if (name := text(service or {}, "status", part, "rayClusterName")))


def service_of(revision: str | None, services: tuple[Document, ...]) -> Document | None:
    """The RayService of a cluster revision."""
    found = (each for each in services if texts(each, "metadata", "labels").get(REVISION_LABEL) == revision)
    return next(found, None) if revision else None


def current_serving_report(
    content: DeploymentLedger, config_map: Document | None, services: tuple[Document, ...]
) -> ServingReport | None:
    """What the Monitor of the revision that clients reach reports."""
    return serving_report(config_map, serving_cluster(service_of(content.revision, services)))


def is_true(document: Document | None, type_: str) -> bool:
    """Whether a condition of a live object is True."""
    return any(
        text(each, "type") == type_ and text(each, "status") == "True"
        for each in documents(mapping(document or {}, "status"), "conditions")
    )


def _report(model: type[M], config_map: Document | None, cluster: str | None) -> M | None:
    written = texts(config_map or {}, "data").get(cluster or "")
    if not written or len(written) > REPORT_LIMIT:
        return None
    try:
        return model.model_validate_json(written)
    except ValidationError:
        return None


def rows_of(config_map: Document) -> int:
    """The most rows that a report of a run tells of; a finished run has one report."""
    found = (training_report(config_map, key) for key in texts(config_map, "data"))
    return max((report.data_rows for report in found if report is not None), default=0)
