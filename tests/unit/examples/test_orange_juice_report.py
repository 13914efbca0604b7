"""What the demo shows and leaves behind: every number, every plot, and how to go on."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer

from drivetrain.api.v1alpha1.deployment import Deployment, IntervalStatus
from drivetrain.cli.main import app
from drivetrain.local import environment
from drivetrain.local.environment import Addresses
from drivetrain.local.statedir import StateDir
from examples.orange_juice import demo, report
from examples.orange_juice.report import Told
from examples.orange_juice.story import Act, Result
from examples.orange_juice.traffic import Batch, Record
from examples.orange_juice.view import Scene, interval_of

ADDRESSES = Addresses(
    kubeconfig=Path("/demo/kubeconfig"),
    api="https://127.0.0.1:1",
    mlflow="http://127.0.0.1:2",
    ray_dashboard="http://127.0.0.1:3",
    serve="http://127.0.0.1:4",
    s3="http://127.0.0.1:5",
    bucket="drivetrain",
    s3_secret="s3",
    s3_access_key="key",
    s3_secret_key="secret",
    ray_token="token",
)
HARM = "Harm is proved. margin: candidate minus stable in [-0.3, -0.2], tolerance 0"


def a_scene(at: float, status: dict[str, object]) -> Scene:
    document = {
        "apiVersion": "drivetrain.dev/v1alpha1",
        "kind": "Deployment",
        "metadata": {"name": "orange-juice"},
        "spec": {"project": "orange-juice", "auth": {"secretName": "keys"}},
        "status": status,
    }
    return Scene(at, 500, None, Deployment.parse(document), ())


def an_interval(metric: str, reach: float) -> dict[str, object]:
    return {"metric": metric, "estimate": 0.0, "lower": -reach, "upper": reach, "verdict": "Open"}


@pytest.fixture
def told() -> Told:
    stable = {"hash": "a" * 16, "version": "2"}
    analysis = {"outcomesStable": 900, "outcomesCandidate": 100, "intervals": [an_interval("margin", 0.1)]}
    rejected = {"hash": "b" * 16, "version": "3", "reason": "Harm", "message": HARM}
    scenes = [
        a_scene(10.0, {"stable": stable}),
        a_scene(11.0, {"stable": stable, "candidate": {"hash": "b" * 16, "version": "3"}, "analysis": analysis}),
        a_scene(12.0, {"stable": stable, "rejected": [rejected]}),
    ]
    record = Record(batches=[Batch(10.0, 500, 0.4, 0.3, float("nan")), Batch(11.0, 500, 0.4, 0.3, 0.01)])
    result = Result(
        parameters={"slope": 14.0},
        gaps={"loyalty oracle over no-loyalty oracle": 0.08},
        acts=[Act(3, "A broken import is rejected for harm", False, 57.0, {"failed:": "it was <not>"})],
        durations={"components ready to report": 302.0, "all components ready": 29.0},
        shares={"version 2, of the loyalty oracle over the no-loyalty oracle": 0.93},
    )
    return Told(result, record, scenes, [{"price": 1.69, "discount": 0.0, "value": 0.4}], ADDRESSES)


def test_the_numbers_are_json_with_acts_durations_seeds_parameters_gaps_and_intervals(
    told: Told, tmp_path: Path
) -> None:
    found = json.loads(
        report.write_numbers(tmp_path, told).read_text(),
        parse_constant=lambda word: pytest.fail(f"{word} is no JSON"),
    )
    assert found["passed"] is False
    assert [(act["number"], act["passed"]) for act in found["acts"]] == [(3, False)]
    assert found["durationsSeconds"]["components ready to report"] == 302.0
    assert set(found["seeds"]) == {"history", "visitors", "tuning", "power check"}
    assert found["market"]["synthetic"] is True
    assert found["market"]["parameters"] == {"slope": 14.0}
    assert found["market"]["gapsUsdPerVisit"] == {"loyalty oracle over no-loyalty oracle": 0.08}
    assert found["market"]["limits"]["flat response rejected"] == 8_000
    assert [batch["surprise"] for batch in found["batches"]] == [None, 0.01]
    assert found["rejected"][0]["message"] == HARM
    assert found["rollouts"][0]["intervals"][0]["metric"] == "margin"
    assert [event["event"] for event in found["events"]] == [
        "version 2 promoted",
        "version 3 enters",
        "version 3 rejected",
    ]
    assert found["addresses"]["MLflow"] == "http://127.0.0.1:2"


def test_the_page_holds_every_plot_says_that_customers_are_synthetic_and_escapes_what_it_quotes(
    told: Told, tmp_path: Path
) -> None:
    page = report.write_page(tmp_path, told).read_text()
    for title in ("KPI over time", "Canary evidence", "Calibration", "Promised and realised", "Value over the levers"):
        assert f"<h2>{title}</h2>" in page
    assert page.count("<svg") == 5
    assert "<b>synthetic</b> (slope 14)" in page
    assert "it was &lt;not&gt;" in page
    assert "http://127.0.0.1:3" in page


def test_the_summary_states_durations_true_shares_addresses_and_three_next_commands(told: Told) -> None:
    following = report.next_commands(StateDir(Path("/demo")), "drivetrain", kept=False)
    lines = report.summary(told, (Path("report.html"), Path("report.json")), following)
    assert "Act 3 FAILED in 57 s: A broken import is rejected for harm" in lines
    assert "True share reached: 93% by version 2, of the loyalty oracle over the no-loyalty oracle" in lines
    assert any(line.startswith("302 s from all components ready to the report") for line in lines)
    assert {"API https://127.0.0.1:1", "MLflow http://127.0.0.1:2", "Ray dashboard http://127.0.0.1:3"} <= set(lines)
    assert [line.strip().removeprefix("Next: ") for line in lines[-3:]] == list(following)


@pytest.mark.parametrize(("kept", "verbs"), [(True, ["status", "down"]), (False, ["up", "status"])])
def test_the_next_commands_fit_what_still_runs_and_the_command_line_takes_them(kept: bool, verbs: list[str]) -> None:
    following = report.next_commands(StateDir(Path("/demo")), "drivetrain", kept=kept)
    assert [command.split()[0] for command in following].count("kubectl") == 1
    ours = [command.split()[1:] for command in following if not command.startswith("kubectl")]
    assert [words[0] for words in ours] == verbs
    known = typer.main.get_group(app)
    for verb, *arguments in ours:
        command = known.commands[verb]
        assert command.make_context(verb, arguments).params


def test_a_failed_first_act_is_reported_though_nobody_has_visited(told: Told, tmp_path: Path) -> None:
    untold = Told(told.result, Record(), [], [], ADDRESSES)
    assert "<h1>Orange juice: an act failed</h1>" in report.write_page(tmp_path, untold).read_text()
    assert json.loads(report.write_numbers(tmp_path, untold).read_text())["rollouts"] == []


def test_an_interval_is_shown_as_unbounded_until_evidence_bounds_it() -> None:
    bounded = IntervalStatus.model_validate(an_interval("margin", 0.1))
    assert interval_of(bounded) == "margin +0.000 [-0.100, +0.100]"
    level = bounded.model_copy(update={"metric": "purchase minimum", "bound": 0.4})
    assert interval_of(level) == "purchase minimum 0.4: +0.000 [-0.100, +0.100]"
    assert interval_of(IntervalStatus.model_validate(an_interval("logLoss", 1e300))) == "logLoss +0.000 [-inf, +inf]"
    early = {
        "candidate": {"hash": "b" * 16, "version": "3"},
        "analysis": {"intervals": [an_interval("logLoss", 1e300)]},
    }
    shown = a_scene(1.0, early).lines()
    assert shown == ("serves     nothing", "candidate  version 3 loading")


class Stage:
    """The part of a stage that the end of a demo touches."""

    def __init__(self, told: Told) -> None:
        self.record, self.scenes, self.is_open = told.record, told.scenes, True

    def close_shop(self) -> None:
        self.is_open = False


@pytest.mark.parametrize("keep", [True, False])
def test_a_failed_act_means_a_report_and_an_exit_code_that_is_not_zero(
    told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: bool
) -> None:
    stage, stopped = Stage(told), []
    story = SimpleNamespace(play=lambda: told.result)
    monkeypatch.setattr(demo, "open_stage", lambda *_: (story, stage, ADDRESSES))
    monkeypatch.setattr(environment, "down", lambda state, _: stopped.append(state.root))
    assert demo.play(tmp_path / "demo", keep=keep) == 1
    assert not stage.is_open
    assert stopped == ([] if keep else [tmp_path / "demo"])
    assert json.loads((tmp_path / "demo" / "report" / "report.json").read_text())["passed"] is False
