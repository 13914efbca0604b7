"""The Monitor's report against a real API server: its own key, and nothing of anybody else's."""

import json
import ssl
import urllib.error
import urllib.request
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from drivetrain.api.errors import ForbiddenError, UnavailableError
from drivetrain.api.report import ServingReport
from drivetrain.serving.reporting import NoReports, Reports, report_writer
from drivetrain.serving.settings import Settings
from tests.support.api_server import ApiServer
from tests.unit.serving.worlds import World

pytestmark = pytest.mark.binaries

REPORT = ServingReport(sequence=1, at=datetime(2026, 5, 4, tzinfo=UTC), replicas=2, weight=10)
PATH = "/api/v1/namespaces/default/configmaps/deployment-juice-report"


@pytest.fixture
def settings(tmp_path: Path, api_server: ApiServer) -> Settings:
    account = tmp_path / "account"
    account.mkdir()
    (account / "token").write_text(api_server.token)
    (account / "ca.crt").write_text(api_server.ca_file.read_text())
    return replace(
        World(tmp_path).settings, report="deployment-juice-report", cluster="juice-abc", service_account=account
    )


def writer(settings: Settings, api_server: ApiServer) -> Reports:
    address = urlsplit(api_server.url)
    return report_writer(
        settings, {"KUBERNETES_SERVICE_HOST": str(address.hostname), "KUBERNETES_SERVICE_PORT": str(address.port)}
    )


def data_of(api_server: ApiServer) -> dict[str, str]:
    request = urllib.request.Request(api_server.url + PATH, headers={"Authorization": f"Bearer {api_server.token}"})
    context = ssl.create_default_context(cafile=str(api_server.ca_file))
    with urllib.request.urlopen(request, timeout=10, context=context) as answer:
        document: dict[str, Any] = json.load(answer)
    return dict(document["data"])


def test_each_cluster_writes_its_own_key_and_keeps_the_others(settings: Settings, api_server: ApiServer) -> None:
    writer(settings, api_server).write(REPORT)
    writer(replace(settings, cluster="juice-def"), api_server).write(REPORT.model_copy(update={"weight": 25}))
    writer(settings, api_server).write(REPORT.model_copy(update={"sequence": 2}))
    found = {key: ServingReport.model_validate_json(text) for key, text in data_of(api_server).items()}
    assert {key: (report.sequence, report.weight) for key, report in found.items()} == {
        "juice-abc": (2, 10),
        "juice-def": (1, 25),
    }


def test_a_token_that_is_not_accepted_is_named(settings: Settings, api_server: ApiServer) -> None:
    (settings.service_account / "token").write_text("somebody else")
    with pytest.raises(ForbiddenError) as caught:
        writer(settings, api_server).write(REPORT)
    assert (caught.value.name, caught.value.status) == ("deployment-juice-report", 401)


def test_a_server_that_does_not_answer_is_worth_another_try(settings: Settings) -> None:
    silent = report_writer(settings, {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": "1"})
    with pytest.raises(UnavailableError):
        silent.write(REPORT)


def test_without_an_api_server_nobody_is_written_to(settings: Settings) -> None:
    assert isinstance(report_writer(settings, {}), NoReports)
