"""The second example, from apply to served decisions: a regression, two levers, a market whose best policy is known."""

import io
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml

from drivetrain.api.documents import Document, text, uid_of
from drivetrain.api.dossier import Dossier
from drivetrain.api.kinds import CONFIG_MAP, DEPLOYMENT, DRIVETRAIN_PROJECT, TRAINING_RUN
from drivetrain.api.layout import attempt
from drivetrain.api.ledger import DeploymentLedger
from drivetrain.api.names import LEDGER_KEY, ledger_name
from drivetrain.api.v1alpha1.deployment import Deployment
from drivetrain.api.v1alpha1.trainingrun import TrainingRun
from examples.renewals.market import history
from examples.renewals.traffic import Renewals
from tests.embedded.conftest import Embedded, condition_in_force, until

pytestmark = [pytest.mark.embedded, pytest.mark.timeout(480)]  # the first test trains, serves and waits for a verdict

MANIFEST = Path(__file__).parents[2] / "examples" / "renewals" / "project.yaml"
BATCH = 400
JUDGED = 2_000
"""Decisions of the promoted version from which its share of the gap is known to about 0.03."""
ROW: Document = {"renewal_id": "r-1", "tenure": 14, "spend": 52.0, "tickets": 2, "region": "north"}


@dataclass(frozen=True, slots=True)
class Story:
    """The example after its version 1 was promoted and decided for a while."""

    here: Embedded
    renewals: Renewals
    version: str


@pytest.fixture(scope="module")
def story(embedded: Embedded) -> Iterator[Story]:
    here = embedded.within("renewals")
    keys = {"decide": secrets.token_urlsafe(24), "outcomes": secrets.token_urlsafe(24)}
    here.apply_secret("renewals-keys", **keys)
    upload_history(here)
    here.apply(yaml.safe_load(MANIFEST.read_text()))
    run = until(lambda: approved(here), 240, "version 1 is approved")
    url = until(lambda: address(here), 120, "the endpoint answers")
    renewals = Renewals(url, keys, np.random.default_rng(21))
    assert run.status.model_version is not None
    version = run.status.model_version

    def promoted() -> bool:
        renewals.renew(BATCH)
        status = deployment_of(here).status
        assert not status.rejected, status.rejected
        return status.stable is not None and status.stable.version == version

    until(promoted, 180, f"version {version} is promoted")

    def serves() -> bool:
        """The replica hears of the promotion a moment after the status."""
        row = renewals.post("/v1/decide", "decide", {"rows": [ROW]})["rows"][0]
        return (row["variant"], row["modelVersion"]) == ("stable", version)

    until(serves, 60, f"version {version} decides for everyone")
    while renewals.recommended[version].decisions < JUDGED:
        renewals.renew(BATCH)
    yield Story(here, renewals, version)
    here.delete(DRIVETRAIN_PROJECT, "renewals")
    until(lambda: not here.managed(), 120, "everything of the project is gone")


def upload_history(here: Embedded) -> None:
    past = io.BytesIO()
    history(6_000, np.random.default_rng(20)).write_csv(past)
    here.s3().put_object(Bucket=here.addresses.bucket, Key="renewals-sources/past.csv", Body=past.getvalue())


def approved(here: Embedded) -> TrainingRun | None:
    found = here.get(TRAINING_RUN, "renewals-1")
    if found is None:
        return None
    assert condition_in_force(found, "Stalled") is None, text(found, "status", "why")
    return TrainingRun.parse(found) if condition_in_force(found, "Complete") else None


def address(here: Embedded) -> str | None:
    found = here.get(DEPLOYMENT, "renewals")
    return text(found, "status", "url") if found and condition_in_force(found, "Ready") else None


def deployment_of(here: Embedded) -> Deployment:
    found = here.get(DEPLOYMENT, "renewals")
    assert found is not None
    return Deployment.parse(found)


def test_version_1_replaces_todays_policy_on_evidence(story: Story) -> None:
    found = story.here.get(CONFIG_MAP, ledger_name(DEPLOYMENT.kind, "renewals"))
    assert found is not None
    ledger = DeploymentLedger.model_validate_json(text(found, "data", LEDGER_KEY))
    assert ledger.stable is not None
    assert ledger.stable.proved_superior
    assert ledger.policies[ledger.stable.hash].model is not None
    stable = deployment_of(story.here).status.stable
    assert stable is not None
    assert stable.version == story.version


def test_the_run_left_a_dossier_of_its_job(story: Story) -> None:
    here, run = story.here, story.here.get(TRAINING_RUN, "renewals-1")
    prefix = f"renewals/{attempt(uid_of(run or {}), 1)}/dossier/"

    def kept() -> list[str]:
        found = here.s3().list_objects_v2(Bucket=here.addresses.bucket, Prefix=prefix)
        return [each["Key"] for each in found.get("Contents", ())]

    (key,) = until(kept, 60, "the dossier is kept")
    dossier = Dossier.model_validate_json(here.s3().get_object(Bucket=here.addresses.bucket, Key=key)["Body"].read())
    assert (dossier.ended, dossier.run, dossier.trials_done) == ("Succeeded", "renewals-1", 2)
    assert "Deployment done" in dossier.log


def test_its_decisions_close_at_least_half_of_the_gap_to_the_best_policy(story: Story) -> None:
    tally = story.renewals.recommended[story.version]
    assert tally.decisions >= JUDGED
    assert tally.share >= 0.5


def test_todays_policy_closed_none_of_the_gap(story: Story) -> None:
    """The yardstick measures: what it gives the baseline is nothing."""
    assert story.renewals.recommended[None].share == pytest.approx(0.0, abs=1e-9)


def test_an_unknown_region_is_flagged_and_answered_by_todays_policy(story: Story) -> None:
    answer = story.renewals.post("/v1/decide", "decide", {"rows": [ROW, {**ROW, "region": "moon"}]})
    known, unknown = answer["rows"]
    assert known["outOfDomain"] == []
    assert known["fallback"] is None
    assert unknown["outOfDomain"] == ["region"]
    assert unknown["fallback"]
    assert unknown["action"] == {"channel": "email", "credit": 5.0}


def test_a_wrong_row_is_refused_by_its_number_and_field(story: Story) -> None:
    without = {name: value for name, value in ROW.items() if name != "spend"}
    rows = [ROW, {**ROW, "tenure": "long"}, without]
    status, answer = story.renewals.ask("/v1/decide", "decide", {"rows": rows})
    assert status == 422
    assert [(each["row"], each["field"]) for each in answer["error"]["problems"]] == [(1, "tenure"), (2, "spend")]


def test_kubectl_shows_at_a_glance_what_is_going_on(story: Story, tmp_path: Path) -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not on PATH")
    command = (kubectl, "--kubeconfig", str(story.here.addresses.kubeconfig), "--cache-dir", str(tmp_path))
    asked = subprocess.run(
        (*command, "get", "dtp,dtr,dtd", "--namespace", story.here.namespace),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    tables = [[line.split() for line in table.splitlines()] for table in asked.stdout.strip().split("\n\n")]
    headers = [table[0] for table in tables]
    assert headers == [
        ["NAME", "READY", "STAGE", "CHAMPION", "KPI", "NEXT", "AGE"],
        ["NAME", "PROJECT", "CAUSE", "READY", "REASON", "STAGE", "PROGRESS", "VERSION", "AGE"],
        ["NAME", "PROJECT", "READY", "STABLE", "CANDIDATE", "WEIGHT", "KPI", "DRIFT", "AGE"],
    ]
    project, run, deployment = (table[1] for table in tables)
    assert project[:4] == ["drivetrainproject.drivetrain.dev/renewals", "True", "Learn", story.version]
    assert run[:5] == ["trainingrun.drivetrain.dev/renewals-1", "renewals", "Initial", "True", "Succeeded"]
    assert deployment[:4] == ["deployment.drivetrain.dev/renewals", "renewals", "True", story.version]
