"""The shell: order of writes, none without need, and crashes after any of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from drivetrain.api.documents import Document, documents, integer, labels_of, name_of, text, uid_of, value
from drivetrain.api.errors import ClusterError, ConflictError, ForbiddenError, RejectedError
from drivetrain.api.kinds import CONFIG_MAP, EVENT, RAY_JOB, TRAINING_RUN, Kind, Ref, ref_of
from drivetrain.controller.cluster.port import Cluster
from drivetrain.controller.core.plan import Apply, Delete, Emit, Plan
from drivetrain.controller.handlers.reconcile import reconcile
from tests.support.fake_cluster import FakeCluster
from tests.support.faults import Crash, NoFaults

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RUN = Ref(TRAINING_RUN, "team", "churn-1")
LEDGER = Ref(CONFIG_MAP, "team", "ledger")
JOB = Ref(RAY_JOB, "team", "job")
OLD = Ref(CONFIG_MAP, "team", "old")


@dataclass(frozen=True, slots=True)
class Seen:
    """The observation of the controller below."""

    owner: Document
    live: Mapping[Ref, Document] = field(default_factory=dict)


class Toy:
    """Keeps a ledger and a RayJob, removes what is called old, and tells so."""

    kind = TRAINING_RUN
    watched: tuple[Kind, ...] = (CONFIG_MAP, RAY_JOB)

    async def observe(self, cluster: Cluster, ref: Ref) -> Seen | None:
        owner = await cluster.get(ref)
        if owner is None:
            return None
        found = [*(await cluster.list(CONFIG_MAP, "team")).items, *(await cluster.list(RAY_JOB, "team")).items]
        return Seen(owner, {ref_of(each): each for each in found})

    def decide(self, observed: Seen, now: datetime) -> Plan:
        queue = text(observed.owner, "spec", "queue")
        done = OLD not in observed.live
        deletions = () if done else (Delete(CONFIG_MAP, OLD.namespace, OLD.name, uid_of(observed.live[OLD])),)
        return Plan(
            ledger=Apply(config_map(LEDGER, {"queue": queue})),
            effects=(
                Apply({**named(JOB), "spec": {"queue": queue}}),
                *deletions,
                Emit("Normal", "Submitted", f"The job is in queue {queue}."),
            ),
            status={
                "observedGeneration": integer(observed.owner, "metadata", "generation"),
                "stage": "done" if done else "cleaning",
                "conditions": [{"type": "Ready", "status": "True", "reason": "Submitted", "message": ""}],
            },
            wake_after=timedelta(minutes=5),
        )


def named(ref: Ref) -> Document:
    return {
        "apiVersion": ref.kind.api_version,
        "kind": ref.kind.kind,
        "metadata": {"name": ref.name, "namespace": ref.namespace},
    }


def config_map(ref: Ref, data: Mapping[str, str]) -> Document:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": ref.name, "namespace": "team"}, "data": data}


def a_world(faults: NoFaults | None = None) -> FakeCluster:
    cluster = FakeCluster(faults=faults)
    cluster.put({**named(RUN), "spec": {"queue": "gpu"}})
    cluster.put(config_map(OLD, {}))
    cluster.writes.clear()
    return cluster


async def until_quiet(cluster: FakeCluster, controller: Toy | None = None) -> int:
    """Reconcile until nothing is written any more; return how many times it took."""
    for number in range(1, 20):
        before = cluster.resource_version
        await reconcile(controller or Toy(), cluster, RUN, NOW, "test")
        if cluster.resource_version == before:
            return number
    raise AssertionError("it never stops writing")


def shape(cluster: FakeCluster) -> list[object]:
    """Everything but versions, uids and who owns which field."""
    events = sorted({(text(each, "reason"), text(each, "note")) for each in cluster.find(EVENT)})
    objects = [
        (ref_of(each), value(each, "data"), value(each, "spec"), value(each, "status"))
        for each in cluster.everything()
        if text(each, "kind") != "Event"
    ]
    return [objects, events]


async def test_the_ledger_is_written_first_then_effects_in_order_then_status_then_events() -> None:
    cluster = a_world()
    await reconcile(Toy(), cluster, RUN, NOW, "test")
    assert [(write.verb, write.ref) for write in cluster.writes[:4]] == [
        ("patch", LEDGER),
        ("patch", JOB),
        ("delete", OLD),
        ("patch", RUN),
    ]
    assert [write.ref.kind for write in cluster.writes[4:]] == [EVENT]


async def test_nothing_is_written_when_everything_is_as_it_should_be() -> None:
    cluster = a_world()
    await until_quiet(cluster)
    asked = len(cluster.requests)
    reconciled = await reconcile(Toy(), cluster, RUN, NOW, "test")
    assert {verb for verb, _ in cluster.requests[asked:]} == {"get", "list"}
    assert reconciled.wake_after == timedelta(minutes=5)
    assert reconciled.conditions == {"Ready": ("True", "Submitted")}


async def test_the_operator_never_writes_spec_or_metadata_of_the_owner() -> None:
    cluster = a_world()
    before = cluster.read(RUN)
    await until_quiet(cluster)
    after = cluster.read(RUN)
    assert before is not None
    assert after is not None
    assert after["spec"] == before["spec"]
    assert (integer(after, "metadata", "generation"), labels_of(after)) == (1, {})


async def test_a_child_that_somebody_edits_or_deletes_is_put_right() -> None:
    cluster = a_world()
    await until_quiet(cluster)
    wanted = shape(cluster)
    cluster.put({**named(JOB), "spec": {"queue": "other"}})
    cluster.remove(LEDGER)
    await until_quiet(cluster)
    assert shape(cluster) == wanted


async def test_a_wiped_status_comes_back_whole() -> None:
    cluster = a_world()
    await until_quiet(cluster)
    wanted = shape(cluster)[0]
    cluster.put_status({**named(RUN), "status": {}})
    await until_quiet(cluster)
    assert shape(cluster)[0] == wanted


async def test_an_owner_that_is_gone_needs_nothing() -> None:
    cluster = FakeCluster()
    reconciled = await reconcile(Toy(), cluster, RUN, NOW, "test")
    assert reconciled.conditions is None
    assert cluster.writes == []


class OneFault(NoFaults):
    """Raises once, before or after the n-th write."""

    def __init__(self, error: Callable[[Ref], BaseException], *, before: int = 0, after: int = 0) -> None:
        self.error, self.before, self.after = error, before, after
        self.writes = 0

    def before_write(self, verb: str, ref: Ref) -> None:
        self.writes += 1
        if self.writes == self.before:
            raise self.error(ref)

    def after_write(self, verb: str, ref: Ref) -> None:
        if self.writes == self.after:
            raise self.error(ref)


WRITES = 7


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("number", range(1, WRITES + 1))
async def test_a_crash_before_or_after_any_write_ends_in_the_same_world(number: int, moment: str) -> None:
    calm = a_world()
    await until_quiet(calm)
    cluster = a_world()
    cluster.faults = OneFault(lambda _: Crash(), **{moment: number})
    with pytest.raises(Crash):
        await until_quiet(cluster)
    cluster.faults = NoFaults()
    await until_quiet(cluster)
    assert shape(cluster)[0] == shape(calm)[0]


async def test_the_number_of_writes_tried_above_is_all_of_them() -> None:
    cluster = a_world()
    faults = OneFault(lambda _: Crash())
    cluster.faults = faults
    await until_quiet(cluster)
    assert faults.writes == WRITES


class Late(NoFaults):
    """Reads that answer from two versions ago."""

    def staleness(self, verb: str, kind: Kind) -> int:
        return 2


async def test_what_was_decided_on_stale_reads_is_not_written() -> None:
    cluster = a_world()
    await until_quiet(cluster)
    ledger = cluster.read(LEDGER)
    cluster.put({**named(RUN), "spec": {"queue": "cpu"}})
    await until_quiet(cluster)
    cluster.faults = Late()
    cluster.writes.clear()
    with pytest.raises(ConflictError):
        await reconcile(Toy(), cluster, RUN, NOW, "test")
    assert cluster.writes == []
    assert cluster.read(LEDGER) != ledger


async def test_a_ledger_that_a_stale_list_does_not_show_is_not_overwritten() -> None:
    cluster = a_world()

    class Blind(Toy):
        async def observe(self, cluster: Cluster, ref: Ref) -> Seen | None:
            seen = await super().observe(cluster, ref)
            return None if seen is None else Seen(seen.owner, {})

    cluster.put(config_map(LEDGER, {"queue": "remembered"}), manager="drivetrain-operator")
    with pytest.raises(ConflictError):
        await reconcile(Blind(), cluster, RUN, NOW, "test")
    ledger = cluster.read(LEDGER)
    assert ledger is not None
    assert value(ledger, "data", "queue") == "remembered"


async def test_a_namesake_of_what_should_be_deleted_is_left_alone() -> None:
    cluster = a_world()

    class LateDelete(Toy):
        def decide(self, observed: Seen, now: datetime) -> Plan:
            return Plan(effects=(Delete(CONFIG_MAP, "team", "old", "00000000-0000-4000-8000-00000000dead"),))

    with pytest.raises(ConflictError):
        await reconcile(LateDelete(), cluster, RUN, NOW, "test")
    assert cluster.read(OLD) is not None


class Refusing(NoFaults):
    """An admission policy that refuses RayJobs."""

    def __init__(self, error: type[ClusterError], message: str, status: int) -> None:
        self.error, self.message, self.status = error, message, status

    def before_write(self, verb: str, ref: Ref) -> None:
        if ref.kind == RAY_JOB:
            raise self.error(self.message, kind="RayJob", namespace="team", name=ref.name, status=self.status)


@pytest.mark.parametrize(
    ("error", "message", "status", "reason"),
    [
        pytest.param(RejectedError, "spec.queue: unknown", 422, "ChildRejected", id="invalid"),
        pytest.param(ForbiddenError, "exceeded quota", 403, "ChildForbidden", id="forbidden"),
        pytest.param(
            ForbiddenError, "label drivetrain.dev/enabled=true is missing", 403, "NamespaceNotEnabled", id="not enabled"
        ),
    ],
)
async def test_a_refused_child_is_told_in_a_condition_and_tried_again_without_writing_more(
    error: type[ClusterError], message: str, status: int, reason: str
) -> None:
    cluster = a_world()
    cluster.faults = Refusing(error, message, status)
    for _ in range(2):
        before = cluster.resource_version
        with pytest.raises(error):
            await reconcile(Toy(), cluster, RUN, NOW, "test")
    assert cluster.resource_version == before, "the second refusal changes nothing"
    run = cluster.read(RUN)
    assert run is not None
    told = {
        text(each, "type"): (text(each, "status"), text(each, "reason"))
        for each in documents(run, "status", "conditions")
    }
    assert told == {"Ready": ("True", "Submitted"), "Reconciling": ("False", reason), "Stalled": ("True", reason)}
    cluster.faults = NoFaults()
    await until_quiet(cluster)
    run = cluster.read(RUN)
    assert run is not None
    assert [text(each, "type") for each in documents(run, "status", "conditions")] == ["Ready"]


async def test_events_name_the_owner_and_its_version_and_are_told_once_per_transition() -> None:
    cluster = a_world()
    await until_quiet(cluster)
    events = cluster.find(EVENT)
    assert {text(each, "reason") for each in events} == {"Submitted"}
    assert len(events) == 2, "one for each of the two changes of status"
    assert all(name_of(each).startswith("churn-1.") for each in events)
    assert {text(each, "regarding", "uid") for each in events} == {uid_of(cluster.read(RUN) or {})}
