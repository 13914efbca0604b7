"""Whether the nodes that there are have room for what is asked."""

from drivetrain.api.documents import JSON, Document
from drivetrain.cli.asks import Ask, of_run
from drivetrain.cli.nodes import nodes
from tests.support.builders import a_run


def a_node(name: str, *, cpu: str = "8", memory: str = "32Gi", gpus: int = 0, **spec: JSON) -> Document:
    amounts: dict[str, JSON] = {"cpu": cpu, "memory": memory, "nvidia.com/gpu": str(gpus)}
    labels: dict[str, JSON] = {"pool": "gpu" if gpus else "cpu"}
    return {"metadata": {"name": name, "labels": labels}, "spec": spec, "status": {"allocatable": amounts}}


def an_ask(**cluster: JSON) -> Ask:
    run = a_run().with_field("spec.scaling", {"workers": 2, "resourcesPerWorker": {"cpu": "4", "gpu": 1}})
    return of_run("TrainingRun shop-1", run.with_field("spec.cluster", cluster).build().spec)


def a_pod(node: str, **requests: str) -> Document:
    asked: dict[str, JSON] = {name.replace("gpu", "nvidia.com/gpu"): amount for name, amount in requests.items()}
    return {
        "spec": {"nodeName": node, "containers": [{"resources": {"requests": asked}}]},
        "status": {"phase": "Running"},
    }


def test_there_is_room_on_an_idle_node() -> None:
    (judged,) = nodes(an_ask(), [a_node("a", cpu="16", gpus=4)], [])
    assert judged.level == "fits"


def test_what_others_hold_is_not_free() -> None:
    (judged,) = nodes(an_ask(), [a_node("a", cpu="16", gpus=4)], [a_pod("a", gpu="3")])
    assert (judged.level, "no room now" in judged.told) == ("waits", True)


def test_pods_that_are_over_hold_nothing() -> None:
    over: Document = {**a_pod("a", gpu="3"), "status": {"phase": "Succeeded"}}
    (judged,) = nodes(an_ask(), [a_node("a", cpu="16", gpus=4)], [over])
    assert judged.level == "fits"


def test_a_pod_that_no_node_can_hold_waits_for_a_larger_one() -> None:
    (judged,) = nodes(an_ask(), [a_node("a", cpu="2", gpus=4)], [])
    assert (judged.level, "a worker Pod asks for 4 cpu" in judged.told) == ("waits", True)


def test_free_room_is_not_known_where_pods_may_not_be_listed() -> None:
    (judged,) = nodes(an_ask(), [a_node("a", cpu="16", gpus=4)], None)
    assert judged.level == "unknown"


def test_selectors_and_taints_keep_pods_away() -> None:
    tainted = a_node("a", cpu="16", gpus=4, taints=[{"key": "gpu", "value": "yes", "effect": "NoSchedule"}])
    assert nodes(an_ask(), [tainted], [])[0].level == "waits"
    tolerant = an_ask(tolerations=[{"key": "gpu", "operator": "Exists"}])
    assert nodes(tolerant, [tainted], [])[0].level == "fits"
    elsewhere = an_ask(nodeSelector={"pool": "cpu"})
    assert nodes(elsewhere, [a_node("a", cpu="16", gpus=4)], [])[0].level == "waits"


def test_a_cordoned_node_has_no_room() -> None:
    assert nodes(an_ask(), [a_node("a", cpu="16", gpus=4, unschedulable=True)], [])[0].level == "waits"


def test_pods_are_spread_over_nodes() -> None:
    both = [a_node("a", cpu="5", gpus=1), a_node("b", cpu="8", gpus=1)]
    assert nodes(an_ask(), both, [])[0].level == "fits"
