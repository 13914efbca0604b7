"""Who may call, and which ids are ours."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from drivetrain.serving.access import Keys, TokenBucket
from drivetrain.serving.identity import Signer, issued_at, signing_key
from drivetrain.store import DirectoryStore

NOW = datetime(2026, 5, 4, 10, tzinfo=UTC)


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    (tmp_path / "decide").write_text("one\n")
    (tmp_path / "outcomes").write_text("two")
    return Keys(tmp_path)


@pytest.mark.parametrize(
    ("header", "verdict"),
    [
        ("Bearer one", "yes"),
        ("bearer one", "yes"),
        ("Bearer two", "forbidden"),
        ("Bearer three", "unknown"),
        ("Basic one", "unknown"),
        ("Bearer ", "unknown"),
        (None, "unknown"),
    ],
)
def test_each_purpose_has_its_own_key(keys: Keys, header: str | None, verdict: str) -> None:
    assert keys.allows("decide", header, 0.0) == verdict


def test_a_changed_key_file_counts_within_a_second_and_a_vanished_one_keeps_the_old_key(
    keys: Keys, tmp_path: Path
) -> None:
    assert keys.allows("decide", "Bearer one", 0.0) == "yes"
    (tmp_path / "decide").unlink()
    assert keys.allows("decide", "Bearer one", 2.0) == "yes"
    (tmp_path / "decide").write_text("new")
    assert keys.allows("decide", "Bearer one", 4.0) == "unknown"
    assert keys.allows("decide", "Bearer new", 4.0) == "yes"


def test_the_bucket_refuses_what_comes_too_fast_and_says_when_to_come_back() -> None:
    bucket = TokenBucket(rate=10, burst=20)
    assert bucket.take(20, 0.0) == 0
    assert bucket.take(5, 0.0) == pytest.approx(0.5)
    assert bucket.take(5, 0.5) == 0


def test_only_ids_that_were_issued_pass_and_tell_when() -> None:
    signer, other = Signer(b"k" * 32, b"a" * 6), Signer(b"x" * 32, b"a" * 6)
    ids = signer.issue(3, NOW)
    assert len(set(ids)) == 3
    assert signer.issued(ids) == [True] * 3
    assert Signer(b"k" * 32, b"b" * 6).issued(ids) == [True] * 3
    assert other.issued(ids) == [False] * 3
    forged = ids[0][:-1] + ("A" if ids[0][-1] != "A" else "B")
    assert signer.issued([forged, "", "x" * 32, ids[0] + "=", "ä" * 32]) == [False] * 5
    assert abs(issued_at(ids[0]) - NOW) < timedelta(milliseconds=1)


def test_all_replicas_sign_with_the_key_that_was_first(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    assert signing_key(store, b"1" * 32) == b"1" * 32
    assert signing_key(store, b"2" * 32) == b"1" * 32
