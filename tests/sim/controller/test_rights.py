"""The operator's rights are what it uses: nothing that it asks for is missing, nothing that it holds is idle."""

from collections.abc import Iterator

import pytest

from drivetrain.api import rights
from drivetrain.api.documents import Document
from drivetrain.api.kinds import LEASE, TRAINING_RUN, WORKLOAD, Kind, Ref, ref_of
from drivetrain.controller.cluster.observation import Deployments, Projects, TrainingRuns
from drivetrain.controller.cluster.port import FIELD_MANAGER, Precondition
from tests.support.fake_cluster import FakeCluster
from tests.support.operator_world import NAMESPACE, SETTINGS, World, a_quick_project
from tests.support.ray_programs import Script
from tests.support.scenarios import STORIES, Schedule, live_through

Use = tuple[str, str, str]
"""Group, resource, verb."""


def cleared_away(world: World) -> Iterator[bool]:
    """A run is cancelled, and the time for which it is kept ends."""
    world.declare(a_quick_project().without_serving().with_field("spec.training.ttlAfterFinished", "1m"))
    run = Ref(TRAINING_RUN, NAMESPACE, "shop-1")
    while not world.ray_jobs():
        yield False
    world.annotate(run, cancel="now")
    while world.cluster.read(run) is not None:
        yield False
    yield True


def granted() -> set[Use]:
    return {
        (right.group, resource, verb)
        for right in rights.OPERATOR
        for resource in right.resources
        for verb in right.verbs
    }


def watched() -> set[Use]:
    """What Kopf lists and watches."""
    controllers = (Projects(SETTINGS), TrainingRuns(SETTINGS, WORKLOAD), Deployments(SETTINGS))
    kinds = {kind for each in controllers for kind in (each.kind, *each.watched)}
    return {(kind.group, kind.plural, verb) for kind in kinds for verb in ("list", "watch")}


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> set[Use]:
    """What the API server is asked for while every story is told, without faults."""
    used: set[Use] = set()
    apply, apply_status = FakeCluster.apply, FakeCluster.apply_status

    def note(kind: Kind, verb: str, subresource: str = "") -> None:
        used.add((kind.group, kind.plural + subresource, verb))

    async def noted(
        self: FakeCluster,
        document: Document,
        *,
        field_manager: str = FIELD_MANAGER,
        expected: Precondition | None = None,
    ) -> Document:
        ref = ref_of(document)
        note(ref.kind, "patch")
        if self.read(ref) is None:
            note(ref.kind, "create")
        return await apply(self, document, field_manager=field_manager, expected=expected)

    async def noted_status(
        self: FakeCluster,
        document: Document,
        *,
        field_manager: str = FIELD_MANAGER,
        expected: Precondition | None = None,
    ) -> Document:
        note(ref_of(document).kind, "patch", "/status")
        return await apply_status(self, document, field_manager=field_manager, expected=expected)

    monkeypatch.setattr(FakeCluster, "apply", noted)
    monkeypatch.setattr(FakeCluster, "apply_status", noted_status)
    monkeypatch.setitem(STORIES, "cleared away", (cleared_away, Script))
    for story in STORIES:
        world = live_through(story, Schedule(until=0))
        for verb, ref in world.cluster.requests:
            if verb != "patch":
                _, slash, subresource = ref.name.partition("/")
                note(ref.kind, verb, slash + subresource)
    return used | watched()


def test_every_right_is_used_and_none_is_missing(used: set[Use]) -> None:
    assert sorted(used - granted()) == [], "missing in drivetrain.api.rights"
    assert sorted(granted() - used) == [], "idle in drivetrain.api.rights"


def test_the_lease_has_the_rights_that_leader_election_asks_for() -> None:
    (right,) = rights.LEASE
    assert (right.group, right.resources) == (LEASE.group, (LEASE.plural,))
    assert set(right.verbs) == {"get", "create", "patch"}
