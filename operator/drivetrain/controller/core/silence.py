"""When an endpoint's Monitor is no longer heard: it promises a report every 30 s, whether or not anything changed."""

from datetime import datetime, timedelta

from drivetrain.api.documents import Document, documents, text
from drivetrain.api.ledger import DeploymentLedger
from drivetrain.api.report import ServingReport
from drivetrain.controller.core.conditions import moment
from drivetrain.controller.core.records import is_true

SILENT_AFTER = timedelta(minutes=3)
"""Six reports missed: longer than a Monitor takes to come back, and than clocks of a cluster may differ."""


def is_silent(report: ServingReport | None, now: datetime) -> bool:
    """Whether this is the last report of a Monitor that reports no more; one from the future is not."""
    return report is not None and now >= report.at + SILENT_AFTER


def due(ledger: DeploymentLedger, service: Document | None, report: ServingReport | None) -> datetime | None:
    """Until when the next report must come; None while the endpoint is not up, since then other reasons say why.

    A cluster that has just come up, or has just come back, has that long for its first report.
    """
    if not is_true(service, "Ready"):
        return None
    ready = (each for each in documents(service or {}, "status", "conditions") if text(each, "type") == "Ready")
    times = [moment(text(each, "lastTransitionTime")) for each in ready]
    heard = [time for time in (*times, ledger.switched_at, report.at if report else None) if time is not None]
    return max(heard) + SILENT_AFTER if heard else None
