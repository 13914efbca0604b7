"""Whether the nodes of a cluster have room for what is asked. Pure."""

from collections.abc import Mapping, Sequence
from decimal import Decimal

from drivetrain.api.documents import Document, documents, labels_of, mapping, name_of, text, texts
from drivetrain.api.v1alpha1.training import Toleration
from drivetrain.cli.asks import GPU, Ask, Judgement, PodAsk, described, quantity


def nodes(ask: Ask, found: Sequence[Document], pods: Sequence[Document] | None) -> tuple[Judgement, ...]:
    """Whether the nodes that there are now have room; `pods` are those of the whole cluster, None where unread."""
    room = {name_of(node): _allocatable(node) for node in found if not mapping(node, "spec").get("unschedulable")}
    judged: list[Judgement] = []
    for pod in ask.pods:
        fitting = [node for node in found if name_of(node) in room and _suits(pod, node)]
        if not any(_holds(room[name_of(node)], pod.amounts) for node in fitting):
            why = "every node that takes it is too small" if fitting else "no node has its labels and takes it"
            why = why if found else "there is no node"
            told = f"nodes: a {pod.name} Pod asks for {described(pod.amounts)}, and {why}; it waits until one joins"
            judged.append(Judgement("waits", told))
    if judged:
        return tuple(judged)
    if pods is None:
        return (Judgement("unknown", "nodes: each Pod fits a node; what is free on them is not known"),)
    for pod_document in pods:
        if (name := text(pod_document, "spec", "nodeName")) in room and not _over(pod_document):
            for resource, amount in _requests(pod_document).items():
                room[name][resource] = room[name].get(resource, Decimal()) - amount
    if _pack(ask, found, room):
        return (Judgement("fits", "nodes: there is room for every Pod now"),)
    return (Judgement("waits", f"nodes: there is no room now for {described(ask.total)} in {_count(ask)} Pods"),)


def _pack(ask: Ask, found: Sequence[Document], room: Mapping[str, dict[str, Decimal]]) -> bool:
    """First fit, largest Pods first: a schedule exists where this finds one."""
    each = [pod for pod in ask.pods for _ in range(pod.count)]
    each.sort(key=lambda pod: (pod.amounts.get(GPU, 0), pod.amounts.get("memory", 0)), reverse=True)
    for pod in each:
        for node in found:
            free = room.get(name_of(node))
            if free is not None and _suits(pod, node) and _holds(free, pod.amounts):
                for resource, amount in pod.amounts.items():
                    free[resource] -= amount
                break
        else:
            return False
    return True


def _count(ask: Ask) -> int:
    return sum(pod.count for pod in ask.pods)


def _allocatable(node: Document) -> dict[str, Decimal]:
    return {name: quantity(value) for name, value in mapping(node, "status", "allocatable").items()}


def _holds(free: Mapping[str, Decimal], amounts: Mapping[str, Decimal]) -> bool:
    return all(free.get(resource, Decimal()) >= amount for resource, amount in amounts.items())


def _suits(pod: PodAsk, node: Document) -> bool:
    """Whether selector and taints let the Pod run there."""
    if not pod.node_selector.items() <= labels_of(node).items():
        return False
    taints = [each for each in documents(node, "spec", "taints") if text(each, "effect") != "PreferNoSchedule"]
    return all(any(_tolerates(toleration, taint) for toleration in pod.tolerations) for taint in taints)


def _tolerates(toleration: Toleration, taint: Document) -> bool:
    if toleration.effect is not None and toleration.effect != text(taint, "effect"):
        return False
    if toleration.key is not None and toleration.key != text(taint, "key"):
        return False
    return toleration.operator == "Exists" or (toleration.value or "") == text(taint, "value")


def _over(pod: Document) -> bool:
    return text(pod, "status", "phase") in ("Succeeded", "Failed")


def _requests(pod: Document) -> dict[str, Decimal]:
    sums: dict[str, Decimal] = {}
    for container in documents(pod, "spec", "containers"):
        for resource, amount in texts(container, "resources", "requests").items():
            sums[resource] = sums.get(resource, Decimal()) + quantity(amount)
    return sums
