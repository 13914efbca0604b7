"""The fence: of two drivers that work at once, only the commits of the higher claim count."""

import itertools
from pathlib import Path

import pytest

from drivetrain.api.errors import FencedError
from drivetrain.pipelines.attempt import Claim, Fence
from drivetrain.store import DirectoryStore

RUN = "uid"


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path)


def claim(store: DirectoryStore, attempt: int, incarnation: int = 1) -> Fence:
    return Fence(store, RUN, Claim(attempt, incarnation, f"cluster-{attempt}-{incarnation}"))


def test_a_claim_holds_until_a_higher_one_comes(store: DirectoryStore) -> None:
    first = claim(store, 1)
    first.check()
    second = claim(store, 1, 2)
    with pytest.raises(FencedError, match=r"attempt 1, incarnation 2 \(cluster-1-2\) owns the run"):
        first.check()
    second.check()


def test_the_next_attempt_fences_all_lower_ones(store: DirectoryStore) -> None:
    lower = [claim(store, 1), claim(store, 2, 3)]
    claim(store, 3)
    for fence in lower:
        with pytest.raises(FencedError):
            fence.check()


def test_a_late_starter_of_an_attempt_that_nobody_claimed_is_fenced_too(store: DirectoryStore) -> None:
    claim(store, 3)
    with pytest.raises(FencedError):
        claim(store, 2, 9)


def test_the_same_claim_again_holds_as_after_a_lost_answer(store: DirectoryStore) -> None:
    claim(store, 1).check()
    claim(store, 1).check()


def test_a_deleted_claim_stops_its_holder(store: DirectoryStore) -> None:
    fence = claim(store, 1)
    store.delete("runs/uid/attempt-1/owner")
    with pytest.raises(FencedError, match="gone from the store"):
        fence.check()


def test_other_runs_are_not_fenced(store: DirectoryStore) -> None:
    fence = claim(store, 1)
    Fence(store, "other", Claim(5, 5))
    fence.check()


@pytest.mark.parametrize("order", list(itertools.permutations([(1, 1), (1, 2), (2, 1), (2, 2)])))
def test_in_whatever_order_drivers_claim_exactly_the_highest_holds(
    store: DirectoryStore, order: tuple[tuple[int, int], ...]
) -> None:
    fences = []
    for attempt, incarnation in order:
        try:
            fences.append(claim(store, attempt, incarnation))
        except FencedError:
            continue
    holding = []
    for fence in fences:
        try:
            fence.check()
        except FencedError:
            continue
        holding.append(fence.claim.rank)
    assert holding == [(2, 2)]


class Interrupted(DirectoryStore):
    """A store in which someone else claims between our look and our write."""

    def __init__(self, root: Path, rival: Claim) -> None:
        super().__init__(root)
        self.rival: Claim | None = rival

    def put_if_absent(self, key: str, data: bytes) -> bool:
        self._interrupt()
        return super().put_if_absent(key, data)

    def put_if_match(self, key: str, data: bytes, etag: str) -> bool:
        self._interrupt()
        return super().put_if_match(key, data, etag)

    def _interrupt(self) -> None:
        if self.rival is not None:
            rival, self.rival = self.rival, None
            Fence(self, RUN, rival)


@pytest.mark.parametrize("before", [None, Claim(1, 1)], ids=["first claim", "over a lower claim"])
def test_a_race_for_the_claim_is_won_by_the_higher_one(tmp_path: Path, before: Claim | None) -> None:
    if before is not None:
        Fence(DirectoryStore(tmp_path), RUN, before)
    Fence(Interrupted(tmp_path, rival=Claim(1, 2)), RUN, Claim(1, 3)).check()
    with pytest.raises(FencedError):
        Fence(Interrupted(tmp_path, rival=Claim(1, 5)), RUN, Claim(1, 4))
