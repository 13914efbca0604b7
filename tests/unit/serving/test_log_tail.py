"""Every object of a log once: whichever lands first, and whatever the store refuses in between."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from drivetrain.api.errors import StoreError
from drivetrain.serving.log_tail import LogTail
from drivetrain.store import DirectoryStore
from tests.unit.serving.logs import START
from tests.unit.serving.test_troubled_store import AwayStore


def key(number: int, writer: str = "r-1", hour: str = "2026-05-04/10") -> str:
    return f"outcomes/{hour}/{writer}-{number:012d}.parquet"


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path)


def polled(tail: LogTail, seconds: float = 0.0, *writers: str) -> list[str]:
    found = tail.poll(START + timedelta(seconds=seconds), writers)
    for each in found:
        tail.took(each)
    return found


def test_each_object_is_told_once_whatever_the_order_in_which_they_land(store: DirectoryStore) -> None:
    tail = LogTail(store, "outcomes", START)
    for at, numbers in enumerate([[3], [5], [2, 4], [], [7], [1, 6], []]):
        for number in numbers:
            store.put(key(number), b"x")
        assert polled(tail, at, "r-1") == [key(number) for number in numbers]


def test_an_object_that_lands_long_after_its_successors_is_found_by_a_full_listing(store: DirectoryStore) -> None:
    tail = LogTail(store, "outcomes", START)
    for number in (1, 500):
        store.put(key(number), b"x")
    polled(tail)
    store.put(key(2), b"x")
    assert [each for at in range(1, 12) for each in polled(tail, at)] == [key(2)]


@pytest.mark.parametrize("later", [0, 3 * 3600, 30 * 3600])
def test_what_was_not_taken_is_told_again_however_late(store: DirectoryStore, later: int) -> None:
    tail = LogTail(store, "outcomes", None)
    names = [key(1), key(2), key(1, "stranger"), key(1, hour="2026-05-03/01")]
    for name in names:
        store.put(name, b"x")
    assert sorted(tail.poll(START, [])) == sorted(names)
    tail.took(key(1))
    assert sorted(polled(tail, later)) == sorted(set(names) - {key(1)})
    assert polled(tail, later + 1) == []


def test_a_first_listing_that_the_store_refused_is_repeated_as_a_whole(store: DirectoryStore) -> None:
    store.put(key(1, hour="2026-04-03/01"), b"x")
    away: Any = AwayStore(store)
    tail = LogTail(away, "outcomes", None)
    away.away = True
    with pytest.raises(StoreError):
        tail.poll(START, [])
    away.away = False
    assert polled(tail) == [key(1, hour="2026-04-03/01")]
