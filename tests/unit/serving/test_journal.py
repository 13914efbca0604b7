"""What the journal keeps, whoever dies when."""

import errno
import io
import json
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from drivetrain.api import decision_log as log
from drivetrain.api import layout
from drivetrain.api.errors import StoreError
from drivetrain.serving.decisions import decide
from drivetrain.serving.journal import Journal, Upload, recover
from drivetrain.serving.records import encode_segment, frame, header
from drivetrain.store import DirectoryStore
from tests.unit.serving.conftest import View
from tests.unit.serving.worlds import World, policy, publish, row

NOW = datetime(2026, 5, 4, 10, 59, 59, tzinfo=UTC)


def joined(frames: list[bytes], writer: str, sequence: int) -> list[Upload]:
    return [Upload(f"log/{writer}-{sequence}", b"|".join(frames))]


class BrokenStore(DirectoryStore):
    """A store that writes an object and then loses the answer, once."""

    broken = True

    def put(self, key: str, data: bytes) -> None:
        super().put(key, data)
        if self.broken:
            self.broken = False
            raise StoreError("StoreUnavailable", "The answer got lost.")


class SlowStore(DirectoryStore):
    """A store that takes its time for the first object."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.began, self.may_end = threading.Event(), threading.Event()

    def put(self, key: str, data: bytes) -> None:
        if not self.began.is_set():
            self.began.set()
            self.may_end.wait(5)
        super().put(key, data)


def refuse() -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


def contents(store: DirectoryStore) -> dict[str, bytes]:
    return {info.key: store.get(info.key) for info in store.list("log/")}


def test_closed_segments_are_uploaded_once_and_deleted(tmp_path: Path) -> None:
    store, journal = DirectoryStore(tmp_path / "s"), Journal(tmp_path / "j", "w")
    journal.begin(b"head")
    journal.append(b"a")
    journal.append(b"b")
    journal.rotate()
    journal.append(b"c")
    assert journal.upload_closed(store, joined) == 1
    assert contents(store) == {"log/w-1": b"head|a|b"}
    journal.rotate()
    journal.rotate()
    assert journal.upload_closed(store, joined) == 1
    assert contents(store)["log/w-2"] == b"head|c"
    assert not list((tmp_path / "j" / "w").glob("*.closed"))


def test_a_lost_answer_of_the_store_repeats_the_same_object(tmp_path: Path) -> None:
    store, journal = BrokenStore(tmp_path / "s"), Journal(tmp_path / "j", "w")
    journal.append(b"a")
    journal.rotate()
    with pytest.raises(StoreError):
        journal.upload_closed(store, joined)
    first = contents(store)
    journal.append(b"b")
    journal.upload_closed(store, joined)
    assert contents(store) == first


def test_a_journal_that_waits_too_long_for_the_store_refuses_until_it_is_uploaded(tmp_path: Path) -> None:
    store, journal = DirectoryStore(tmp_path / "s"), Journal(tmp_path / "j", "w", limit=200)
    for _ in range(2):
        for _ in range(3):
            journal.append(b"x" * 50)
            journal.rotate()
        with pytest.raises(OSError, match="wait for the store"):
            journal.append(b"x" * 50)
        journal.upload_closed(store, joined)
    assert list(contents(store).values()) == [b"|" + b"x" * 50] * 6


def test_a_living_writers_journal_is_left_alone(tmp_path: Path) -> None:
    store, journal = DirectoryStore(tmp_path / "s"), Journal(tmp_path / "j", "w")
    journal.append(b"a")
    assert recover(tmp_path / "j", store, joined) == 0
    journal.close()
    assert recover(tmp_path / "j", store, joined) == 1
    assert contents(store) == {"log/w-1": b"|a"}
    assert not list((tmp_path / "j").iterdir())


def test_a_torn_frame_at_the_end_is_left_out(tmp_path: Path) -> None:
    store, journal = DirectoryStore(tmp_path / "s"), Journal(tmp_path / "j", "w")
    journal.append(b"whole")
    (segment,) = (tmp_path / "j" / "w").glob("*.open")
    with segment.open("ab") as file:
        file.write(b"\x40\x00\x00\x00garbage")
    journal.close()
    recover(tmp_path / "j", store, joined)
    assert contents(store) == {"log/w-1": b"|whole"}


@pytest.mark.parametrize("before", [0, 1])
def test_what_is_answered_after_a_frame_that_the_disk_refused_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    store, journal = DirectoryStore(tmp_path / "s"), Journal(tmp_path / "j", "w")
    journal.begin(b"head")
    for _ in range(before):
        journal.append(b"early")
    with monkeypatch.context() as full:
        room, write = [7], os.write
        full.setattr("os.write", lambda file, data: write(file, data[: room.pop()]) if room else refuse())
        with pytest.raises(OSError, match="No space"):
            journal.append(b"refused")
    for frame_ in (b"a", b"b"):
        journal.append(frame_)
    journal.rotate()
    journal.upload_closed(store, joined)
    assert contents(store) == {"log/w-1": b"|".join([b"head", *[b"early"] * before, b"a", b"b"])}


@pytest.mark.parametrize("refused", ["os.open", "pathlib.Path.rename"])
def test_a_segment_that_the_disk_does_not_let_close_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    store, journal = DirectoryStore(tmp_path / "s"), Journal(tmp_path / "j", "w")
    journal.append(b"a")
    with monkeypatch.context() as full:
        full.setattr(refused, lambda *_: refuse())
        with pytest.raises(OSError, match="No space"):
            journal.rotate()
    journal.append(b"b")
    journal.rotate()
    journal.append(b"c")
    journal.close()
    recover(tmp_path / "j", store, joined)
    assert contents(store) == {"log/w-1": b"|a|b", "log/w-2": b"|c"}


def test_a_second_upload_waits_for_the_one_that_runs(tmp_path: Path) -> None:
    store, journal = SlowStore(tmp_path / "s"), Journal(tmp_path / "j", "w")
    for payload in (b"a", b"b"):
        journal.append(payload)
        journal.rotate()
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(journal.upload_closed, store, joined)
        assert store.began.wait(5)
        second = threads.submit(journal.upload_closed, store, joined)
        wait([second], timeout=0.2)  # long enough for an upload that does not wait
        store.may_end.set()
        assert (first.result(5), second.result(5)) == (2, 0)
    assert contents(store) == {"log/w-1": b"|a", "log/w-2": b"|b"}


def test_a_segment_encodes_to_the_same_bytes_under_the_hour_of_its_first_row(view: View) -> None:
    serving = view()
    ids = ["a", "b"]
    decisions = decide(serving.contract.rows([row(0), row(1, store="2")]), ids, serving)
    columns = header(serving)
    frames = [columns.header, frame(decisions, ids, NOW, columns.objective)]
    uploads = encode_segment(frames, "w", 7)
    assert uploads == encode_segment(frames, "w", 7)
    assert [upload.key for upload in uploads] == [f"{layout.DECISIONS}/2026-05-04/10/w-000000000007.parquet"]
    table = pq.read_table(io.BytesIO(uploads[0].data))
    assert table.column(log.DECISION_ID).to_pylist() == ids
    first = table.to_pylist()[0]
    assert sum(atom["probability"] for atom in first[log.DISTRIBUTION_STABLE]) == pytest.approx(1)
    assert first[log.DISTRIBUTION_CANDIDATE] is None


def test_a_segment_that_cannot_be_encoded_is_kept_as_it_is_and_stops_none_after_it(view: View, tmp_path: Path) -> None:
    serving, columns = view(), header(view())
    store, journal = DirectoryStore(tmp_path / "s"), Journal(tmp_path / "j", "w")
    journal.begin(columns.header)
    for id_, week in (("a", b"1e300"), ("b", b"7.0")):
        written = frame(decide(serving.contract.rows([row(0, week=7)]), [id_], serving), [id_], NOW, columns.objective)
        assert b'"week":[7.0]' in written
        journal.append(written.replace(b'"week":[7.0]', b'"week":[' + week + b"]"))
        journal.rotate()
    assert journal.upload_closed(store, encode_segment) == 2
    aside, logged = sorted(contents(store).items(), reverse=True)
    assert aside[0] == "log/unreadable/w-000000000001.jsonl"
    assert [json.loads(line).get("id") for line in aside[1].splitlines()] == [None, ["a"]]
    assert pq.read_table(io.BytesIO(logged[1])).column(log.DECISION_ID).to_pylist() == ["b"]


def test_a_killed_replica_loses_no_answered_decision_and_none_appears_twice(world: World) -> None:
    baseline, stable = world.mount(policy()), world.mount(policy(publish(world.store)))
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.unit.serving.killed_replica", str(world.root), baseline, stable],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **world.env},
        cwd=Path(__file__).parents[3],
    )
    assert process.stdout is not None
    answered = [json.loads(process.stdout.readline()) for _ in range(3)]
    process.send_signal(signal.SIGKILL)
    process.wait()
    ids = [decision["decisionId"] for answer in answered for decision in answer["rows"]]
    assert not list(world.store.list(layout.DECISIONS))
    for _ in range(2):  # a recovery that died after its upload is repeated by the next one
        kept = {path: path.read_bytes() for path in world.settings.journal.rglob("*") if path.is_file()}
        recover(world.settings.journal, world.store, encode_segment)
        for path, data in kept.items():
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
    logged = [
        id_
        for info in world.store.list(layout.DECISIONS)
        for id_ in pq.read_table(io.BytesIO(world.store.get(info.key))).column(log.DECISION_ID).to_pylist()
    ]
    assert logged == ids
