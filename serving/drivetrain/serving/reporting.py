"""Writes the ServingReport into the Deployment's report ConfigMap, one key per cluster, by server-side apply."""

import json
import os
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from drivetrain.api.canonical import canonical_json
from drivetrain.api.errors import ClusterError, ForbiddenError, NotFoundError, UnavailableError
from drivetrain.api.report import REPORT_LIMIT, ServingReport
from drivetrain.serving.settings import Settings

_SECONDS = 10.0


class Reports(Protocol):
    """Where reports go."""

    def write(self, report: ServingReport) -> None:
        """Brings the report to the operator. Raises ClusterError."""
        ...


class NoReports:
    """An endpoint without a Kubernetes API around it: nobody reads its reports."""

    def write(self, report: ServingReport) -> None:
        """Keeps nothing."""


def report_writer(settings: Settings, env: Mapping[str, str]) -> Reports:
    """A writer into the Deployment's report ConfigMap where the environment names one."""
    host, port = env.get("KUBERNETES_SERVICE_HOST", ""), env.get("KUBERNETES_SERVICE_PORT", "443")
    if not (host and settings.report and settings.cluster):
        return NoReports()
    return ReportWriter(settings, f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}")


class ReportWriter:
    """Applies one key of one ConfigMap; the ServiceAccount may do nothing else."""

    def __init__(self, settings: Settings, server: str) -> None:
        self._settings = settings
        self._server = server

    def write(self, report: ServingReport) -> None:
        """Applies the report. Raises ClusterError."""
        settings = self._settings
        text = canonical_json(report)
        if len(text.encode()) > REPORT_LIMIT:  # the evidence of rollout and drift is what the operator acts on
            text = canonical_json(report.model_copy(update={"adjusted": {}}))
        body = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": settings.report, "namespace": settings.namespace},
            "data": {settings.cluster: text},
        }
        manager = f"drivetrain-monitor-{settings.cluster}"
        path = f"/api/v1/namespaces/{settings.namespace}/configmaps/{settings.report}"
        request = urllib.request.Request(  # noqa: S310 - https always
            f"{self._server}{path}?fieldManager={manager}&force=true",
            data=json.dumps(body).encode(),
            method="PATCH",
            headers={
                "Content-Type": "application/apply-patch+yaml",
                "Authorization": f"Bearer {self._token()}",
            },
        )
        try:
            with urllib.request.urlopen(request, timeout=_SECONDS, context=self._trust()):  # noqa: S310 - as above
                return
        except urllib.error.HTTPError as error:
            raise self._error(error.code, error.read().decode(errors="replace")[:500]) from error
        except OSError as error:
            raise self._error(0, str(error)) from error

    def _error(self, status: int, message: str) -> ClusterError:
        kind = NotFoundError if status == 404 else ForbiddenError if status in (401, 403) else UnavailableError
        return kind(
            message,
            kind="ConfigMap",
            namespace=self._settings.namespace,
            name=self._settings.report,
            status=status,
        )

    def _token(self) -> str:
        return self._file("token").read_text().strip()  # read each time: the kubelet renews it

    def _trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=os.fspath(self._file("ca.crt")))

    def _file(self, name: str) -> Path:
        path = self._settings.service_account / name
        if not path.exists():
            raise self._error(0, f"{path} is missing")
        return path
