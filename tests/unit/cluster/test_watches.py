"""What Kueue's conditions, seen one after another, say that work held."""

from drivetrain.api.documents import JSON, Document
from tests.cluster import watches


def a_workload(*conditions: tuple[str, str, str], gpus: int = 2) -> Document:
    """A state of the Workload of job `run-a1-t`, made at 10:00:00."""
    told: JSON = [
        {"type": type_, "status": status, "lastTransitionTime": f"2026-01-05T{at}Z"} for type_, status, at in conditions
    ]
    pods: JSON = [
        {"count": 1, "template": {"spec": {"containers": [{"resources": {"requests": {"cpu": "1"}}}]}}},
        {
            "count": 2,
            "template": {"spec": {"containers": [{"resources": {"requests": {"nvidia.com/gpu": str(gpus)}}}]}},
        },
    ]
    owner: JSON = [{"kind": "RayJob", "name": "run-a1-t"}]
    metadata: JSON = {"namespace": "team", "creationTimestamp": "2026-01-05T10:00:00Z", "ownerReferences": owner}
    return {"metadata": metadata, "spec": {"podSets": pods}, "status": {"conditions": told}}


ADMITTED = ("Admitted", "True", "10:00:05")
EVICTED = ("Evicted", "True", "10:00:20")
TWICE = (
    a_workload(),
    a_workload(ADMITTED),
    a_workload(ADMITTED, EVICTED),
    a_workload(("Admitted", "False", "10:00:20"), EVICTED),
    a_workload(("Admitted", "True", "10:01:00"), ("Evicted", "False", "10:01:00")),
    a_workload(("Admitted", "True", "10:01:00"), ("Finished", "True", "10:01:30")),
)


def test_each_admission_lasts_until_the_eviction_or_end_that_follows() -> None:
    (held,) = watches.spans(TWICE).values()
    assert [(end - start).total_seconds() for start, end in held] == [15, 30]
    assert watches.seconds(held) == 45


def test_what_is_not_held_is_waited_for() -> None:
    waits = watches.waits(TWICE)
    assert [(end - start).total_seconds() for start, end in waits["team/run-a1-t"]] == [5, 40]


def test_gpus_are_those_of_all_pods() -> None:
    assert watches.gpus(a_workload(gpus=3)) == 6
