"""Whether a queue admits what is asked, resource by resource."""

from collections.abc import Mapping
from decimal import Decimal

import pytest

from drivetrain.api.documents import JSON, Document, documents
from drivetrain.cli.asks import Ask, described, of_run, of_serving, quantity, worst
from drivetrain.cli.quota import quota
from tests.support.builders import a_deployment, a_run

QUEUE: Document = {"kind": "LocalQueue", "metadata": {"name": "gpu-pool"}, "spec": {"clusterQueue": "pool"}}


def an_ask(workers: int = 2) -> Ask:
    run = a_run().with_field("spec.queue", {"name": "gpu-pool"})
    run = run.with_field("spec.scaling", {"workers": workers, "resourcesPerWorker": {"cpu": "1", "gpu": 1}})
    return of_run("TrainingRun shop-1", run.build().spec)


def pool(
    *,
    gpus: int = 4,
    used: int = 0,
    pending: int = 0,
    covered: tuple[str, ...] = ("cpu", "memory", "nvidia.com/gpu"),
    spot: bool = False,
    **spec: JSON,
) -> Document:
    """A ClusterQueue with one flavor, or with an idle second one."""
    nominal: dict[str, JSON] = {"cpu": "100", "memory": "500Gi", "nvidia.com/gpu": gpus}
    resources: list[JSON] = [{"name": name, "nominalQuota": nominal[name]} for name in covered]
    flavors: list[JSON] = [{"name": name, "resources": resources} for name in ("default", *(["spot"] if spot else []))]
    reserved: list[JSON] = [{"name": "nvidia.com/gpu", "total": str(used)}]
    return {
        "kind": "ClusterQueue",
        "metadata": {"name": "pool"},
        "spec": {"resourceGroups": [{"coveredResources": list(covered), "flavors": flavors}], **spec},
        "status": {"flavorsReservation": [{"name": "default", "resources": reserved}], "pendingWorkloads": pending},
    }


def test_an_ask_adds_up_head_workers_and_submitter() -> None:
    ask = an_ask(3)
    assert (ask.gpus, [pod.count for pod in ask.pods]) == (3, [1, 3, 1])
    assert ask.total["cpu"] >= 4
    assert "3 nvidia.com/gpu" in described(ask.total)


def test_an_endpoint_asks_for_as_many_replicas_as_it_may_have() -> None:
    deployment = a_deployment().with_field("spec.autoscaling", {"minReplicas": 1, "maxReplicas": 5}).build()
    assert sum(pod.count for pod in of_serving("Deployment shop", deployment.spec).pods) == 6


def test_what_is_free_fits() -> None:
    assert worst(each.level for each in quota(an_ask(), QUEUE, pool(used=2))) == "fits"


def test_what_is_in_use_must_be_waited_for_and_says_how_much_is_lacking() -> None:
    (judged,) = [each for each in quota(an_ask(), QUEUE, pool(used=3)) if each.level == "waits"]
    assert judged.told == "queue gpu-pool: 2 nvidia.com/gpu asked, 1 more needed: 3 of 4 in use"


def test_more_than_the_quota_is_never_admitted() -> None:
    (judged,) = [each for each in quota(an_ask(5), QUEUE, pool()) if each.level == "never"]
    assert "can never give more than 4" in judged.told


def test_a_resource_that_is_not_covered_is_never_admitted() -> None:
    (judged,) = [each for each in quota(an_ask(), QUEUE, pool(covered=("cpu", "memory"))) if each.level == "never"]
    assert "does not cover nvidia.com/gpu" in judged.told


def test_a_cohort_lends_what_its_other_queues_do_not_use() -> None:
    own = pool(gpus=1, cohortName="teams")
    lender: Document = {**pool(gpus=3), "metadata": {"name": "other"}}
    assert worst(each.level for each in quota(an_ask(3), QUEUE, own, [own, lender])) == "fits"
    busy: Document = {**pool(gpus=3, used=3), "metadata": {"name": "other"}}
    assert worst(each.level for each in quota(an_ask(3), QUEUE, own, [own, busy])) == "waits"
    assert worst(each.level for each in quota(an_ask(5), QUEUE, own, [own, lender])) == "never"


def test_a_cohort_that_may_not_be_read_is_not_known() -> None:
    judged = quota(an_ask(3), QUEUE, pool(gpus=1, cohortName="teams"))
    assert worst(each.level for each in judged) == "unknown"


def test_the_flavor_with_room_decides() -> None:
    assert worst(each.level for each in quota(an_ask(), QUEUE, pool(used=4))) == "waits"
    assert worst(each.level for each in quota(an_ask(), QUEUE, pool(used=4, spot=True))) == "fits"


def flavored(**flavors: Mapping[str, int]) -> Document:
    """A ClusterQueue with such flavors."""
    covered = ("cpu", "memory", "nvidia.com/gpu")
    given: list[JSON] = [
        {
            "name": name,
            "resources": [
                {"name": each, "nominalQuota": amounts.get(each.rpartition("/")[2], "1Ti")} for each in covered
            ],
        }
        for name, amounts in flavors.items()
    ]
    return {**pool(), "spec": {"resourceGroups": [{"coveredResources": list(covered), "flavors": given}]}, "status": {}}


@pytest.mark.parametrize("flavors", [("a100", "plain"), ("plain", "a100")])
def test_head_and_workers_may_get_different_flavors(flavors: tuple[str, str]) -> None:
    amounts = {"a100": {"cpu": 3, "gpu": 2}, "plain": {"cpu": 2, "gpu": 0}}
    judged = quota(an_ask(), QUEUE, flavored(**{each: amounts[each] for each in flavors}))
    assert worst(each.level for each in judged) == "fits", judged
    assert "queue gpu-pool: 2 nvidia.com/gpu asked of flavor a100, 0 of 2 in use" in [each.told for each in judged]


def test_equal_pods_get_one_flavor_and_are_never_split() -> None:
    halves = flavored(a={"cpu": 8, "gpu": 1}, b={"cpu": 8, "gpu": 1})
    (judged,) = quota(an_ask(), QUEUE, halves)
    assert judged.level == "never"
    told = "the worker Pods ask for 2 cpu, 4Gi memory, 2 nvidia.com/gpu together, and no flavor can ever give that"
    assert told in judged.told


def test_more_than_all_flavors_can_ever_give_together_is_never_admitted() -> None:
    both = flavored(a={"cpu": 2, "gpu": 2}, b={"cpu": 1, "gpu": 0})
    (judged,) = quota(an_ask(), QUEUE, both)
    assert (judged.level, "3.05 cpu asked, it can never give more than 3" in judged.told) == ("never", True)


def test_pods_that_each_fit_some_flavor_but_never_all_at_once_are_never_admitted() -> None:
    (judged,) = quota(an_ask(), QUEUE, flavored(a={"cpu": 2, "gpu": 2}, b={"cpu": 0, "gpu": 8}, c={"cpu": 0, "gpu": 8}))
    assert judged.level == "never"


def test_flavors_are_chosen_per_resource_group() -> None:
    apart: list[JSON] = [
        {
            "coveredResources": covered,
            "flavors": [{"name": flavor, "resources": [{"name": each, "nominalQuota": "100Gi"} for each in covered]}],
        }
        for flavor, covered in (("cores", ["cpu", "memory"]), ("a100", ["nvidia.com/gpu"]))
    ]
    judged = quota(an_ask(), QUEUE, {**pool(), "spec": {"resourceGroups": apart}})
    assert [each.level for each in judged] == ["fits", "fits", "fits"]


def lender(*, used: int, lends: int | None) -> Document:
    """Another ClusterQueue with four GPUs."""
    found = pool(gpus=4, used=used)
    (group,) = documents(found, "spec", "resourceGroups")
    (flavor,) = documents(group, "flavors")
    limit: Document = {} if lends is None else {"lendingLimit": lends}
    resources = [{**each, **limit} if name_is(each) else each for each in documents(flavor, "resources")]
    spec: Document = {"resourceGroups": [{**group, "flavors": [{**flavor, "resources": resources}]}]}
    return {**found, "metadata": {"name": "other"}, "spec": spec}


def name_is(entry: Document) -> bool:
    return entry["name"] == "nvidia.com/gpu"


@pytest.mark.parametrize(
    ("lends", "used", "level"),
    [
        (0, 0, "never"),
        (1, 0, "never"),
        (2, 0, "fits"),
        (2, 2, "fits"),
        (2, 3, "waits"),
        (None, 2, "fits"),
        (None, 3, "waits"),
    ],
)
def test_a_cohort_lends_no_more_than_its_queues_allow(lends: int | None, used: int, level: str) -> None:
    own = pool(gpus=1, cohortName="teams")
    assert worst(each.level for each in quota(an_ask(3), QUEUE, own, [own, lender(used=used, lends=lends)])) == level


@pytest.mark.parametrize(
    "stopped",
    [
        {"spec": {"stopPolicy": "HoldAndDrain"}},
        {"status": {"conditions": [{"type": "Active", "status": "False", "message": "FlavorNotFound"}]}},
    ],
)
def test_a_stopped_queue_admits_nothing(stopped: Document) -> None:
    (judged,) = quota(an_ask(), QUEUE, {**pool(), **stopped})
    assert judged.level == "never"


def test_workloads_that_wait_already_are_told() -> None:
    assert any("3 workloads wait" in each.told for each in quota(an_ask(), QUEUE, pool(pending=3)))


@pytest.mark.parametrize(
    ("written", "number"),
    [
        ("2", 2),
        (2, 2),
        ("1500m", Decimal("1.5")),
        ("1Gi", 1024**3),
        ("1e3", 1000),
        ("5k", 5000),
        ("", 0),
        ("x", 0),
        (None, 0),
    ],
)
def test_quantities_are_read_in_every_spelling(written: JSON, number: Decimal) -> None:
    assert quantity(written) == number
