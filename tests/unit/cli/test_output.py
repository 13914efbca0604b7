"""What commands write: for programs and pipes as it is, whole, and again when it has changed."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from drivetrain.api.documents import Document
from drivetrain.api.errors import UnavailableError
from drivetrain.api.kinds import TRAINING_RUN
from drivetrain.cli import watching
from drivetrain.cli.main import app
from tests.support.bench import Bench, RunBench
from tests.support.builders import a_project
from tests.unit.cli.person import Person
from tests.unit.cli.test_transcripts import Listener, with_pods

ODD = "train.py:100:\tUserWarning: [bold] :smile: \x1b[1m"


@dataclass
class Connected:
    """A person's session, as commands get it."""

    session: Person
    local: None = None


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    """Runs a command of `watching` for a person; returns its exit code and what it wrote."""

    def run(person: Person, *arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(watching, "connected", lambda *_: Connected(person))
        result = CliRunner().invoke(app, arguments)
        return result.exit_code, result.stdout

    return run


Command = Callable[..., tuple[int, str]]


def test_logs_are_written_as_they_are(command: Command) -> None:
    person = Listener(with_pods("ray-job-submitter"))
    person.said = [ODD]
    assert command(person, "logs", "shop-1") == (0, f"ray-job-submitter: {ODD}\n")


@pytest.mark.parametrize(("form", "parse"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_strings_of_objects_are_written_as_they_are(
    command: Command, form: str, parse: Callable[[str], Document]
) -> None:
    bench = RunBench()
    bench.set_status(TRAINING_RUN, "shop-1", why=ODD)
    _, told = command(Person(bench), "runs", "-o", form)
    assert parse(told)["items"][0]["status"]["why"] == ODD  # type: ignore[index, call-overload]  # a test's JSON


def test_an_answer_is_printed_for_programs(command: Command) -> None:
    code, told = command(Person(RunBench()), "why", "shop-1", "-o", "json")
    (answer,) = json.loads(told)["answers"]
    assert (code, answer["head"]) == (0, "TrainingRun shop-1: was not looked at yet")


def test_what_the_operator_wrote_is_neither_markup_nor_an_emoji(command: Command) -> None:
    bench = RunBench()
    bench.set_status(TRAINING_RUN, "shop-1", why="train.py:100: [bold]")
    for name in ("runs", "status"):
        assert "train.py:100: [bold]" in command(Person(bench), name)[1]


def test_a_fault_on_line_100_is_found_there(tmp_path: Path) -> None:
    manifest = yaml.safe_dump(a_project().with_field("spec.levers[0].step", "0.3").document())
    line = next(number for number, text in enumerate(manifest.splitlines(), 1) if "'0.3'" in text)
    file = tmp_path / "project.yaml"
    file.write_text("\n" * (100 - line) + manifest)
    assert f"{file}:100: spec.levers[0].step" in CliRunner().invoke(app, ["validate", str(file)]).stdout


@dataclass
class Moments:
    """In place of time: what happens while the watch sleeps; then somebody presses Ctrl-C."""

    actions: Iterator[Callable[[], None]]
    slept: list[float] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        next(self.actions, self._interrupt)()

    @staticmethod
    def _interrupt() -> None:
        raise KeyboardInterrupt


def test_a_watch_prints_each_state_once_until_interrupted(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = RunBench()
    bench.set_status(TRAINING_RUN, "shop-1", why="Kueue waits")
    states = (lambda: None, lambda: bench.set_status(TRAINING_RUN, "shop-1", why="a Pod starts"))
    monkeypatch.setattr(watching, "time", Moments(iter(states)))
    monkeypatch.setattr(watching, "now", lambda: bench.now)
    code, told = command(Person(bench), "status", "--watch")
    assert code == 130
    assert [told.count(each) for each in ("DrivetrainProject shop", "Kueue waits", "a Pod starts")] == [2, 1, 1]


def test_a_watch_goes_on_when_the_api_server_is_back(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    class Away(Person):
        away = False

        def list(self, kind, labels=None, *, namespace=None):  # type: ignore[no-untyped-def]  # as Person's
            if self.away:
                raise UnavailableError("it restarts", kind=kind.kind, namespace="", name="", status=0)
            return super().list(kind, labels, namespace=namespace)

    bench = Bench()
    person = Away(bench)
    moments = (lambda: setattr(person, "away", True), lambda: setattr(person, "away", False))
    monkeypatch.setattr(watching, "time", Moments(iter(moments)))
    monkeypatch.setattr(watching, "now", lambda: bench.now)
    code, told = command(person, "status", "--watch")
    assert code == 130
    assert [told.count(each) for each in ("DrivetrainProject shop", "it restarts")] == [2, 1]
