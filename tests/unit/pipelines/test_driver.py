"""The driver: the whole line, what it skips, how it resumes after a kill anywhere, and how failures are reported."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from drivetrain.api.errors import (
    ClusterError,
    ContractError,
    DrivetrainError,
    FencedError,
    ImageError,
    InvalidSpecError,
    ModelError,
    Problem,
    ReportedError,
    SourceError,
    StoreError,
)
from drivetrain.api.model import ModelContract
from drivetrain.api.report import RunResult
from drivetrain.api.runspec import RunSpec
from drivetrain.api.v1alpha1.project import VersionReference
from drivetrain.pipelines import versions
from drivetrain.pipelines.__main__ import failure, read_spec
from drivetrain.pipelines.attempt import Claim, Fence
from drivetrain.pipelines.driver import Built, Setting, drive, prepare
from drivetrain.pipelines.sources import SourceReader
from drivetrain.pipelines.stage import StageName
from drivetrain.pipelines.tracking import Opening, Registration
from drivetrain.pipelines.work import LocalTrials, Task, TrialRunner
from drivetrain.store import DirectoryStore
from tests.support.shop import a_dataset, a_run, decisions, outcomes, visits, write_log, write_source

NOW = datetime(2026, 3, 2, tzinfo=UTC)
LOG = {"name": "log", "origin": "Collected", "format": "DecisionLog"}


class KilledError(BaseException):
    """As if the process had ended here."""


@dataclass
class Registry:
    """A registry in memory that outlives drivers."""

    versions: list[Registration] = field(default_factory=list)

    def open(self, opening: Opening, heard: Callable[[str], None]) -> None:
        heard(f"mlflow-{opening.run_uid}")

    def opened(self) -> None:
        pass

    def register(self, registration: Registration) -> str:
        known = [number for number, one in enumerate(self.versions, 1) if one.digest == registration.digest]
        if not known:
            self.versions.append(registration)
        return str(known[0] if known else len(self.versions))

    def close(self, status: str, why: str = "") -> None:
        pass


@dataclass
class Audience:
    """Hears everything, and may kill the driver at a word."""

    kill_at: str = ""
    words: list[str] = field(default_factory=list)
    fields: dict[str, Any] = field(default_factory=dict)
    counts: list[int] = field(default_factory=list)

    def began(self, stage: StageName) -> None:
        self._hear(f"{stage} began")

    def advanced(self, stage: StageName, share: float) -> None:
        pass

    def ended(self, stage: StageName, *, reused: bool, seconds: float) -> None:
        self._hear(f"{stage} {'reused' if reused else 'ran'}")

    def update(self, **fields: Any) -> None:
        self.fields |= fields

    def trials(self, done: int) -> None:
        self.counts.append(done)

    def _hear(self, word: str) -> None:
        self.words.append(word)
        if word == self.kill_at:
            raise KilledError(word)


class CountedTrials(LocalTrials):
    """Counts fits, and how often workers were asked to start."""

    def __init__(self) -> None:
        super().__init__()
        self.fits = 0
        self.starts = 0

    def start(self) -> None:
        self.starts += 1

    def run(self, tasks: Any) -> Any:
        self.fits += len(tasks)
        yield from super().run(tasks)


@dataclass
class World:
    """A store, sources and a registry in which drivers run one after another."""

    folder: Path
    registry: Registry = field(default_factory=Registry)
    trials: CountedTrials = field(default_factory=CountedTrials)

    @property
    def store(self) -> DirectoryStore:
        return DirectoryStore(self.folder / "store")

    def run(
        self,
        spec: RunSpec,
        *,
        attempt: int = 1,
        kill_at: str = "",
        now: datetime = NOW,
        store: DirectoryStore | None = None,
    ) -> tuple[Built, Audience]:
        audience = Audience(kill_at)
        return drive(spec, self.setting(spec, audience, attempt=attempt, now=now, store=store)), audience

    def setting(
        self, spec: RunSpec, audience: Audience, *, attempt: int, now: datetime, store: DirectoryStore | None = None
    ) -> Setting:
        own = store or self.store
        work = self.folder / f"work-{attempt}"
        work.mkdir(exist_ok=True)
        return Setting(
            store=own,
            reader=SourceReader(spec.data.store, {}),
            work=work,
            attempt=attempt,
            guard=Fence(own, spec.run_uid, Claim(attempt, 1, f"cluster-{attempt}")),
            audience=audience,
            tracking=self.registry,
            trials=self._workers,
            now=now,
        )

    @contextmanager
    def _workers(self) -> Iterator[TrialRunner]:
        yield self.trials


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def a_shop_run(world: World, rows: int = 700, **fields: Any) -> RunSpec:
    return a_run(a_dataset(write_source(visits(rows), world.folder / "in" / "visits.parquet")), **fields)


def test_a_run_ends_with_a_registered_version_whose_files_lie_under_its_digest(world: World) -> None:
    built, audience = world.run(a_shop_run(world))
    result = built.result
    assert result.state == "Approved"
    assert result.digest is not None
    assert result.uri == world.store.uri(f"models/{result.digest}")
    contract = ModelContract.model_validate_json(world.store.get(f"models/{result.digest}/contract.json"))
    assert (contract.digest, contract.data_version) == (result.digest, built.data_version)
    assert [one.digest for one in world.registry.versions] == [result.digest]
    assert audience.fields["mlflow_run"] == "mlflow-uid-1"
    assert "dummy.logLoss" in audience.fields["metrics"]
    assert audience.counts == [0, 1, 2, 3]


def test_the_data_version_is_reported_before_a_model_is_fitted(world: World) -> None:
    spec = a_shop_run(world)
    audience = Audience(kill_at="Features began")
    with pytest.raises(KilledError):
        drive(spec, world.setting(spec, audience, attempt=1, now=NOW))
    assert versions.manifest_of(world.store, audience.fields["data_version"]).rows == 700
    assert world.trials.fits == 0


def test_preparing_ends_with_a_data_version_that_training_then_reuses(world: World) -> None:
    spec = a_shop_run(world)
    audience = Audience()
    result = prepare(spec, world.setting(spec, audience, attempt=1, now=NOW))
    assert (result.state, world.trials.fits, world.registry.versions) == ("Prepared", 0, [])
    prepared = audience.fields["data_version"]
    built, trained = world.run(spec)
    assert (built.result.state, built.data_version) == ("Approved", prepared)
    assert "Collection ran" not in trained.words


def test_preparing_finds_that_the_champion_is_gone_before_gpus_are_asked_for(world: World) -> None:
    champion = VersionReference(version="1", digest="f" * 64, run="shop-1")
    spec = a_shop_run(world).model_copy(update={"champion": champion})
    with pytest.raises(ModelError, match="champion"):
        prepare(spec, world.setting(spec, Audience(), attempt=1, now=NOW))


def test_new_rows_start_the_workers_before_the_first_fit(world: World) -> None:
    spec = a_shop_run(world)
    audience = Audience(kill_at="Collection ran")
    with pytest.raises(KilledError):
        drive(spec, world.setting(spec, audience, attempt=1, now=NOW))
    assert (world.trials.starts, world.trials.fits) == (1, 0)


def test_a_gate_that_fails_refuses_the_version_and_says_why(world: World) -> None:
    gates = {"gates": [{"metric": "logLoss", "threshold": 0.01}]}
    built, _ = world.run(a_shop_run(world, evaluation=gates))
    assert built.result.state == "Refused"
    assert "logLoss" in built.result.message
    assert not world.registry.versions[0].approved


def test_another_run_over_unchanged_inputs_fits_nothing_and_starts_no_workers(world: World) -> None:
    spec = a_shop_run(world)
    first, _ = world.run(spec)
    fits, starts = world.trials.fits, world.trials.starts
    second, audience = world.run(spec.model_copy(update={"run_uid": "uid-2", "run": "shop-2"}))
    assert (world.trials.fits, world.trials.starts) == (fits, starts)
    assert second.result.digest == first.result.digest
    assert [word for word in audience.words if word.endswith("ran")] == ["Deployment ran", "Feedback ran"]


def test_another_attempt_of_a_finished_run_does_nothing_at_all(world: World) -> None:
    spec = a_shop_run(world)
    first, _ = world.run(spec)
    again, audience = world.run(spec, attempt=2)
    assert again.result == first.result
    assert not [word for word in audience.words if word.endswith("ran")]
    assert len(world.registry.versions) == 1


def test_attempts_learn_from_the_same_rows_whatever_came_to_the_sources_meanwhile(world: World) -> None:
    spec = a_shop_run(world)
    with pytest.raises(KilledError):
        world.run(spec, kill_at="Selection began")
    write_source(visits(900, seed=9), world.folder / "in" / "visits.parquet")
    built, _ = world.run(spec, attempt=2)
    assert built.rows == 700


def test_a_published_model_never_changes_and_an_equal_graph_with_another_contract_has_another_name(
    world: World,
) -> None:
    spec = a_shop_run(world)
    first, _ = world.run(spec)
    published = {info.key: info.etag for info in world.store.list("models/")}
    kpi = spec.objective.kpi.model_copy(update={"matures_after": timedelta(hours=2)})
    other = spec.objective.model_copy(update={"kpi": kpi})
    second, _ = world.run(spec.model_copy(update={"run_uid": "uid-2", "objective": other}))
    assert second.model.contract.graph == first.model.contract.graph
    assert second.result.digest != first.result.digest
    assert {info.key: info.etag for info in world.store.list("models/")}.items() > published.items()


def test_a_published_file_that_is_not_what_its_name_says_is_named_and_left_alone(world: World) -> None:
    spec = a_shop_run(world)
    first, _ = world.run(spec)
    key = f"models/{first.result.digest}/reference.json"
    world.store.put(key, b"{}")
    with pytest.raises(ModelError, match=r"reference\.json is not what its name says"):
        world.run(spec.model_copy(update={"run_uid": "uid-2"}))
    assert world.store.get(key) == b"{}"


def test_new_rows_make_another_version_for_another_run(world: World) -> None:
    spec = a_shop_run(world)
    first, _ = world.run(spec)
    write_source(visits(900, seed=9), world.folder / "in" / "visits.parquet")
    second, _ = world.run(spec.model_copy(update={"run_uid": "uid-2"}))
    assert second.rows == 900
    assert second.data_version != first.data_version


def test_a_pinned_version_is_read_back_though_its_source_is_gone(world: World) -> None:
    spec = a_shop_run(world)
    first, _ = world.run(spec)
    (world.folder / "in" / "visits.parquet").unlink()
    pinned = a_run(spec.data, run_uid="uid-2", data_version=first.data_version)
    assert world.run(pinned)[0].result.digest == first.result.digest


def test_a_retraining_learns_from_the_log_up_to_its_watermark(world: World) -> None:
    data = a_dataset(
        sources=[
            {"name": "visits", "uri": write_source(visits(700), world.folder / "v.parquet"), "format": "Parquet"},
            LOG,
        ]
    )
    decided = decisions(600, NOW - timedelta(hours=1, minutes=5))
    write_log(world.store, decided, outcomes(decided["decision_id"].to_list(), [1.0, 0.0] * 300, NOW))
    built, _ = world.run(a_run(data))
    assert built.rows == 700 + 301, "one decision a second, matured after an hour: those of the first five minutes"
    assert versions.manifest_of(world.store, built.data_version).watermark == (NOW - timedelta(hours=1)).isoformat()


def test_the_champion_is_fetched_and_compared_with(world: World) -> None:
    gates = {"gates": [{"metric": "logLoss", "versus": "Champion", "margin": 0.01}]}
    spec = a_shop_run(world, evaluation=gates)
    first, _ = world.run(spec)
    assert first.result.digest is not None
    champion = VersionReference(version="1", digest=first.result.digest, run="shop-1")
    second, _ = world.run(spec.model_copy(update={"run_uid": "uid-2", "champion": champion}))
    assert "champion.logLoss" in second.model.metrics


def test_a_champion_that_is_gone_is_named(world: World) -> None:
    champion = VersionReference(version="1", digest="f" * 64, run="shop-1")
    with pytest.raises(ModelError, match="gone from the store"):
        world.run(a_shop_run(world).model_copy(update={"champion": champion}))


@pytest.mark.parametrize("file", ["contract.json", "model.onnx"])
def test_nothing_is_compared_with_a_champion_that_was_altered(world: World, file: str) -> None:
    spec = a_shop_run(world)
    first, _ = world.run(spec)
    assert first.result.digest is not None
    champion = VersionReference(version="1", digest=first.result.digest, run="shop-1")
    key = f"models/{first.result.digest}/{file}"
    world.store.put(key, world.store.get(key) + b" ")
    with pytest.raises(ModelError) as caught:
        world.run(spec.model_copy(update={"run_uid": "uid-2", "champion": champion}))
    assert caught.value.reason == "ModelAltered"


STEPS = ["Collection", "Features", "Selection", "Tuning", "Training", "Evaluation", "Deployment", "Feedback"]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("moment", ["began", "ran"])
def test_a_driver_killed_at_any_stage_is_resumed_to_the_same_end(world: World, step: str, moment: str) -> None:
    spec = a_shop_run(world)
    with pytest.raises(KilledError):
        world.run(spec, kill_at=f"{step} {moment}")
    done = world.trials.fits
    resumed, audience = world.run(spec, attempt=2)
    reused = STEPS[: STEPS.index(step) + (moment == "ran")]
    pinned = set(reused) - {"Collection"}  # a pinned run does not even ask for its collection
    assert {word.split()[0] for word in audience.words if word.endswith("reused")} >= pinned
    whole = World(world.folder / "undisturbed")
    (world.folder / "undisturbed").mkdir()
    undisturbed, _ = whole.run(spec)
    assert resumed.result.digest == undisturbed.result.digest
    assert resumed.model.metrics == undisturbed.model.metrics
    assert resumed.data_version == undisturbed.data_version
    assert world.trials.fits == max(done, whole.trials.fits), "no fit was done twice"
    assert len(world.registry.versions) == 1


class DyingStore(DirectoryStore):
    """Dies at its n-th write, before or after it took effect."""

    def __init__(self, root: Path, at: int, *, before: bool) -> None:
        super().__init__(root)
        self._left, self._before = at, before

    def _counted(self, write: Callable[[], Any]) -> Any:
        self._left -= 1
        if self._left == 0 and self._before:
            raise KilledError
        done = write()
        if self._left == 0:
            raise KilledError
        return done

    def put(self, key: str, data: bytes) -> None:
        self._counted(lambda: DirectoryStore.put(self, key, data))

    def put_if_absent(self, key: str, data: bytes) -> bool:
        return bool(self._counted(lambda: DirectoryStore.put_if_absent(self, key, data)))

    def upload(self, key: str, file: Path) -> None:
        self._counted(lambda: DirectoryStore.upload(self, key, file))


@pytest.mark.nightly
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_a_driver_killed_at_any_write_is_resumed_to_the_same_end(tmp_path: Path, *, before: bool) -> None:
    undisturbed = World(tmp_path / "undisturbed")
    undisturbed.folder.mkdir()
    expected = undisturbed.run(a_shop_run(undisturbed))[0]
    writes = 0
    while True:
        writes += 1
        world = World(tmp_path / f"{writes}")
        world.folder.mkdir()
        spec = a_shop_run(world)
        try:
            world.run(spec, store=DyingStore(world.folder / "store", writes, before=before))
        except KilledError:
            resumed, _ = world.run(spec, attempt=2)
            assert resumed.result.digest == expected.result.digest
            assert len(world.registry.versions) == 1
        else:
            break
    assert writes > 20, "every write of a run was tried"


def test_a_driver_that_was_overtaken_while_it_trained_registers_nothing(world: World) -> None:
    spec = a_shop_run(world)

    class Overtaken(CountedTrials):
        def run(self, tasks: Sequence[Task]) -> Any:
            Fence(world.store, spec.run_uid, Claim(1, 2, "after eviction"))
            yield from super().run(tasks)

    world.trials = Overtaken()
    with pytest.raises(FencedError):
        world.run(spec)
    assert world.registry.versions == []
    assert not list(world.store.list("models/"))


def test_a_broken_source_has_no_side_effect(world: World) -> None:
    spec = a_run(a_dataset(write_source(visits(50).drop("shelf"), world.folder / "v.parquet")))
    with pytest.raises(SourceError):
        world.run(spec)
    assert [info.key for info in world.store.list("")] == ["runs/uid-1/attempt-1/owner", "runs/uid-1/watermark"]
    assert world.registry.versions == []


@pytest.mark.parametrize(
    ("rows", "reason"),
    [(visits(60), "TooFewRows"), (visits(700).with_columns(sold=pl.lit(1)), "TargetOneClass")],
    ids=["too few rows", "one class"],
)
def test_data_that_no_model_can_be_learned_from_becomes_no_version(
    world: World, rows: pl.DataFrame, reason: str
) -> None:
    spec = a_run(a_dataset(write_source(rows, world.folder / "in" / "visits.parquet")))
    with pytest.raises(ContractError) as caught:
        world.run(spec)
    assert caught.value.reason == reason
    assert world.registry.versions == []
    assert [info.key for info in world.store.list("") if not info.key.startswith("runs/")] == []


def test_worst_cases_are_written_for_people(world: World) -> None:
    world.run(a_shop_run(world))
    worst = pl.read_ndjson(world.store.get("runs/uid-1/worst-cases.jsonl"))
    assert {"visit", "@truth", "@prediction", "@loss"} <= set(worst.columns)
    assert worst["@loss"].is_sorted(descending=True)


@pytest.mark.parametrize(
    ("error", "reason", "permanent"),
    [
        (SourceError("SourceNotFound", "no"), "SourceNotFound", True),
        (ContractError("TooFewRows", "no"), "TooFewRows", True),
        (InvalidSpecError((Problem("x", "y"),)), "InvalidSpec", True),
        (ModelError("NoModel", "no"), "NoModel", True),
        (ImageError("ImageUnsupported", "no"), "ImageUnsupported", True),
        (StoreError("CredentialsRejected", "no"), "CredentialsRejected", True),
        (StoreError("StoreUnavailable", "no"), "StoreUnavailable", False),
        (ReportedError("TrackingFailed", "no"), "TrackingFailed", False),
        (ClusterError("no", kind="K", namespace="n", name="o", status=500), "ClusterUnavailable", False),
        (DrivetrainError("no"), "Drivetrain", False),
        (ZeroDivisionError("no"), "InternalError", False),
    ],
)
def test_a_failure_says_whether_another_attempt_can_help(error: Exception, reason: str, permanent: bool) -> None:
    result = failure(error)
    assert (result.state, result.reason, result.permanent) == ("Failed", reason, permanent)


def test_a_long_message_is_cut_to_what_a_report_holds() -> None:
    assert len(failure(StoreError("StoreUnavailable", "x" * 5000)).message) == 1024


def test_the_mounted_spec_is_read_from_its_file_or_its_folder(tmp_path: Path) -> None:
    spec = a_run(a_dataset())
    (tmp_path / "spec.json").write_text(spec.model_dump_json(by_alias=True))
    assert read_spec({"DRIVETRAIN_SPEC": str(tmp_path / "spec.json")}) == spec
    assert read_spec({"DRIVETRAIN_SPEC": str(tmp_path)}) == spec


@pytest.mark.parametrize("text", ["{", '{"run": 7}'])
def test_a_spec_that_cannot_be_read_is_a_permanent_mistake(tmp_path: Path, text: str) -> None:
    (tmp_path / "spec.json").write_text(text)
    with pytest.raises(InvalidSpecError) as caught:
        read_spec({"DRIVETRAIN_SPEC": str(tmp_path)})
    assert failure(caught.value) == RunResult(
        state="Failed", reason="InvalidSpec", message=str(caught.value)[:1024], permanent=True
    )
