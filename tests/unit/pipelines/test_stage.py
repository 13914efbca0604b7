"""The runner of stages: skips what is unchanged, commits once, and commits nothing after its fence is lost."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from drivetrain.api.canonical import Hashable
from drivetrain.api.errors import FencedError, StoreError
from drivetrain.pipelines.stage import StageName, StageRunner, input_hash
from drivetrain.pipelines.trials import StoredTrialLog, TrialRecord
from drivetrain.store import DirectoryStore


@dataclass
class Doubling:
    """A stage that doubles a number and counts how often it ran."""

    number: int
    code: int = 1
    ran: list[int] = field(default_factory=list)
    name = StageName.FEATURES
    meanwhile: Callable[[], None] = lambda: None

    def inputs(self) -> Hashable:
        return {"number": self.number}

    def run(self, advance: Callable[[float], None]) -> int:
        self.ran.append(self.number)
        advance(0.5)
        self.meanwhile()
        return 2 * self.number

    def save(self, output: int, folder: Path) -> None:
        (folder / "number").write_text(str(output))

    def load(self, folder: Path) -> int:
        return int((folder / "number").read_text())


class OpenGuard:
    """A fence that holds until told otherwise."""

    def __init__(self, writer: str = "1.1") -> None:
        self.writer = writer
        self.lost = False

    def check(self) -> None:
        if self.lost:
            raise FencedError("lost")


class Heard:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def began(self, stage: StageName) -> None:
        self.words.append(f"{stage} began")

    def advanced(self, stage: StageName, share: float) -> None:
        self.words.append(f"{stage} at {share}")

    def ended(self, stage: StageName, *, reused: bool, seconds: float) -> None:
        self.words.append(f"{stage} {'reused' if reused else 'ran'}")


def a_runner(
    tmp_path: Path, guard: OpenGuard | None = None, heard: Heard | None = None, work: str = "work"
) -> StageRunner:
    (tmp_path / work).mkdir(exist_ok=True)
    return StageRunner(DirectoryStore(tmp_path / "store"), tmp_path / work, guard or OpenGuard(), heard or Heard())


def test_a_stage_with_unchanged_inputs_is_not_run_again(tmp_path: Path) -> None:
    heard = Heard()
    stage = Doubling(4)
    assert a_runner(tmp_path, heard=heard).run(stage) == 8
    assert a_runner(tmp_path, heard=heard, work="other").run(stage) == 8
    assert stage.ran == [4]
    assert heard.words == ["Features began", "Features at 0.5", "Features ran", "Features began", "Features reused"]


def test_other_inputs_or_other_code_run_again(tmp_path: Path) -> None:
    runner = a_runner(tmp_path)
    assert [runner.run(Doubling(number)) for number in (1, 2)] == [2, 4]
    changed = Doubling(1, code=2)
    runner.run(changed)
    assert changed.ran == [1]
    assert len({input_hash(Doubling(1)), input_hash(Doubling(2)), input_hash(changed)}) == 3


def test_a_driver_that_lost_its_fence_while_it_worked_commits_nothing(tmp_path: Path) -> None:
    guard = OpenGuard()

    def lose() -> None:
        guard.lost = True

    runner = a_runner(tmp_path, guard)
    with pytest.raises(FencedError):
        runner.run(Doubling(4, meanwhile=lose))
    assert list(runner.store.list("")) == []


def test_a_stage_that_failed_leaves_nothing_to_reuse(tmp_path: Path) -> None:
    def fail() -> None:
        raise StoreError("StoreUnavailable", "no answer")

    runner = a_runner(tmp_path)
    with pytest.raises(StoreError):
        runner.run(Doubling(4, meanwhile=fail))
    assert runner.run(Doubling(4)) == 8


def test_of_two_that_finish_the_same_stage_both_go_on_with_what_was_committed_first(tmp_path: Path) -> None:
    class Other(Doubling):
        def run(self, advance: Callable[[float], None]) -> int:
            return 1000  # as another thread count might give

    def rival() -> None:
        assert a_runner(tmp_path, OpenGuard("2.1"), work="rival").run(Other(4)) == 1000

    assert a_runner(tmp_path).run(Doubling(4, meanwhile=rival)) == 1000


def test_files_that_were_uploaded_without_their_manifest_are_no_output(tmp_path: Path) -> None:
    runner = a_runner(tmp_path)
    stage = Doubling(4)
    runner.run(stage)
    runner.store.delete(f"stages/Features/{input_hash(stage)}/manifest.json")
    assert a_runner(tmp_path, work="again").run(stage) == 8
    assert stage.ran == [4, 4]


def test_an_altered_output_is_refused(tmp_path: Path) -> None:
    runner = a_runner(tmp_path)
    stage = Doubling(4)
    runner.run(stage)
    (output,) = [info.key for info in runner.store.list("stages/") if not info.key.endswith("manifest.json")]
    runner.store.put(output, b"9")
    with pytest.raises(StoreError, match="not what was written"):
        a_runner(tmp_path, work="again").run(stage)


def record(key: str, loss: float = 0.5) -> TrialRecord:
    return TrialRecord(key, "trees", {"num_leaves": 4}, {"logLoss": loss}, 0.1)


def a_log(tmp_path: Path, attempt: int, guard: OpenGuard | None = None) -> StoredTrialLog:
    return StoredTrialLog(DirectoryStore(tmp_path), "uid", attempt, guard or OpenGuard(), lambda count: None)


def test_an_attempt_reads_the_trials_of_all_lower_ones_and_of_its_own(tmp_path: Path) -> None:
    a_log(tmp_path, 1).append(record("a"))
    a_log(tmp_path, 2).append(record("b"))
    assert set(a_log(tmp_path, 2).finished()) == {"a", "b"}
    assert a_log(tmp_path, 3).finished()["a"] == record("a")
    assert set(a_log(tmp_path, 1).finished()) == {"a"}


def test_a_trial_is_counted_when_it_is_logged(tmp_path: Path) -> None:
    counts: list[int] = []
    log = StoredTrialLog(DirectoryStore(tmp_path), "uid", 1, OpenGuard(), counts.append)
    log.append(record("a"))
    log.append(record("b"))
    assert counts == [0, 1, 2]


def test_a_trial_that_two_incarnations_finish_is_logged_once_and_the_first_counts(tmp_path: Path) -> None:
    late = a_log(tmp_path, 1)
    a_log(tmp_path, 1).append(record("a", 0.1))
    late.append(record("a", 0.2))
    assert a_log(tmp_path, 1).finished()["a"].metrics == {"logLoss": 0.1}


def test_a_fenced_driver_logs_no_trial(tmp_path: Path) -> None:
    guard = OpenGuard()
    log = a_log(tmp_path, 1, guard)
    guard.lost = True
    with pytest.raises(FencedError):
        log.append(record("a"))
    assert a_log(tmp_path, 1).finished() == {}
