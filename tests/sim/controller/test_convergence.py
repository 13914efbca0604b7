"""Whatever goes wrong, the world ends as it would have without faults, and then the operator writes nothing more.

Promises that hold at every tick are in `World.check`: attempts and observed generations never go back, no two drivers
claim the same incarnation, a ready variant stays ready, a rejected hash stays rejected. A failure names its schedule;
`live_through(story, schedule)` replays it.
"""

from collections.abc import Iterator
from functools import cache

import pytest

from drivetrain.api.documents import JSON
from tests.support.scenarios import STORIES, Schedule, differences, final, live_through


@cache
def without_faults(story: str) -> tuple[dict[str, JSON], int]:
    """How the story ends by itself, and how many writes that takes."""
    world = live_through(story, Schedule())
    return final(world), world.faults.writes


def rough(story: str, seed: int) -> Schedule:
    """Conflicts, outages, lost answers, stale reads, mistreated events, wiped statuses; queued runs are preempted."""
    evict = 0.03 if story in ("queued", "with GPUs") else 0.0
    return Schedule(seed=seed, rate=0.08, stale=0.05, mistreat=0.2, wipe=0.05, evict=evict)


def crashes(story: str, *, every: int, offset: int = 0) -> Iterator[Schedule]:
    """A crash before and after each `every`-th write of the story."""
    for write in range(1 + offset, without_faults(story)[1] + 1, every):
        yield Schedule(crash=(write, "before"))
        yield Schedule(crash=(write, "after"))


def assert_ends_alike(story: str, schedule: Schedule) -> None:
    world = live_through(story, schedule)
    found = differences(final(world), without_faults(story)[0])
    assert not found, f"{story}, {schedule} ends differently:\n" + "\n".join(found[:20])


@pytest.mark.parametrize("story", STORIES)
def test_a_crash_before_or_after_a_write_changes_nothing_in_the_end(story: str) -> None:
    for schedule in crashes(story, every=29, offset=7):
        assert_ends_alike(story, schedule)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("story", STORIES)
def test_everything_going_wrong_at_once_changes_nothing_in_the_end(story: str, seed: int) -> None:
    assert_ends_alike(story, rough(story, seed))


@pytest.mark.nightly
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("story", STORIES)
def test_a_crash_at_every_single_write_changes_nothing_in_the_end(story: str) -> None:
    for schedule in crashes(story, every=1):
        assert_ends_alike(story, schedule)


@pytest.mark.nightly
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("story", STORIES)
def test_two_hundred_rough_schedules_change_nothing_in_the_end(story: str) -> None:
    for seed in range(100, 300):
        assert_ends_alike(story, rough(story, seed))
