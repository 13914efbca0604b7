"""What a run or an endpoint asks for, and quantities to compare it by. Pure."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Literal

from drivetrain.api.documents import JSON
from drivetrain.api.v1alpha1.deployment import DeploymentSpec
from drivetrain.api.v1alpha1.training import Cluster, Queue, Resources, Toleration, TrainingTemplate
from drivetrain.controller.manifests import ray_service
from drivetrain.controller.manifests.ray_job import SUBMITTER

GPU = "nvidia.com/gpu"
Level = Literal["fits", "waits", "never", "unknown"]
LEVELS: Sequence[Level] = ("fits", "unknown", "waits", "never")
"""From good to bad."""
_SUFFIXES: Mapping[str, Decimal] = {
    "": Decimal(1),
    **{letter: Decimal(1000) ** power for power, letter in enumerate("num", start=-3)},
    **{letter: Decimal(1000) ** power for power, letter in enumerate("kMGTPE", start=1)},
    **{f"{letter}i": Decimal(1024) ** power for power, letter in enumerate("KMGTPE", start=1)},
}
_QUANTITY = re.compile(r"([0-9.]+(?:[eE][+-]?[0-9]+)?)(|[numkMGTPE]|[KMGTPE]i)")


@dataclass(frozen=True, slots=True)
class PodAsk:
    """Equal Pods."""

    name: str
    count: int
    amounts: Mapping[str, Decimal]
    """Of each: resource to quantity."""
    node_selector: Mapping[str, str]
    tolerations: tuple[Toleration, ...] = ()


@dataclass(frozen=True, slots=True)
class Ask:
    """What one run or endpoint asks for while it works."""

    subject: str
    pods: tuple[PodAsk, ...]
    queue: Queue | None

    @property
    def total(self) -> dict[str, Decimal]:
        """Resource to quantity, of all Pods together."""
        sums: dict[str, Decimal] = {}
        for pod in self.pods:
            for resource, each in pod.amounts.items():
                sums[resource] = sums.get(resource, Decimal()) + each * pod.count
        return sums

    @property
    def gpus(self) -> int:
        """GPUs of all Pods together."""
        return int(self.total.get(GPU, Decimal()))


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whether something is there, in words."""

    level: Level
    told: str


def of_run(subject: str, spec: TrainingTemplate) -> Ask:
    """A run at its largest: head, workers and the submitter."""
    pods = [_pods("head", 1, spec.cluster.head, spec.cluster)]
    if spec.scaling.workers:
        pods.append(_pods("worker", spec.scaling.workers, spec.scaling.resources_per_worker, spec.cluster))
    pods.append(_pods("submitter", 1, SUBMITTER, spec.cluster))
    return Ask(subject, tuple(pods), spec.queue)


def of_serving(subject: str, spec: DeploymentSpec) -> Ask:
    """An endpoint at its largest: the head, and the Pods that its replicas share. Kueue does not queue it."""
    shared = math.ceil(ray_service.most_replicas(spec) / ray_service.replicas_per_pod(spec))
    pods = (
        _pods("head", 1, spec.cluster.head, spec.cluster),
        _pods("replica", shared, ray_service.pod_resources(spec), spec.cluster),
    )
    return Ask(subject, pods, None)


def described(amounts: Mapping[str, Decimal]) -> str:
    """Amounts as people write them: 4 cpu, 16Gi memory, 2 nvidia.com/gpu."""
    order = sorted(
        amounts, key=lambda name: (("cpu", "memory", GPU).index(name) if name in ("cpu", "memory", GPU) else 9, name)
    )
    return ", ".join(f"{shown(name, amounts[name])} {name}" for name in order if amounts[name])


def shown(resource: str, value: Decimal) -> str:
    """A quantity: memory in binary units, others as plain numbers."""
    if resource != "memory":
        return f"{value.normalize():f}"
    for unit, letter in ((Decimal(1024) ** 3, "Gi"), (Decimal(1024) ** 2, "Mi")):
        if value >= unit:
            return f"{round(value / unit, 1).normalize():f}{letter}"
    return f"{value:f}"


def quantity(written: JSON) -> Decimal:
    """The number that a Kubernetes quantity stands for; 0 for what is none."""
    found = _QUANTITY.fullmatch(str(written if written is not None else ""))
    try:
        return Decimal(found[1]) * _SUFFIXES[found[2]] if found else Decimal()
    except InvalidOperation:
        return Decimal()


def worst(levels: Iterable[Level]) -> Level:
    """The level that decides."""
    return max(levels, key=LEVELS.index, default="fits")


def _pods(name: str, count: int, resources: Resources, cluster: Cluster) -> PodAsk:
    amounts = {"cpu": quantity(resources.cpu), "memory": quantity(resources.memory)}
    if resources.gpu:
        amounts[GPU] = Decimal(resources.gpu)
    return PodAsk(name, count, amounts, dict(cluster.node_selector), cluster.tolerations)
