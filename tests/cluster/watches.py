"""What the API server told of some objects while a test went on, and what Kueue's own times say that work held."""

import json
import subprocess
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import IO

from drivetrain.api.documents import Document, documents, integer, name_of, namespace_of, text, value
from drivetrain.controller.core.conditions import moment
from drivetrain.controller.manifests.quantities import amount
from tests.cluster.clusters import condition

Span = tuple[datetime, datetime]


@contextmanager
def watched(resource: str) -> Iterator[list[Document]]:
    """Every state of these objects in all namespaces that is told meanwhile, in order; the list grows."""
    seen: list[Document] = []
    command = ["kubectl", "get", resource, "--all-namespaces", "--watch", "--output=json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    reader = threading.Thread(target=_read, args=(process.stdout, seen), daemon=True)
    reader.start()
    try:
        yield seen
    finally:
        process.terminate()
        process.wait(10)
        reader.join(10)


def _read(lines: IO[str], seen: list[Document]) -> None:
    whole: list[str] = []
    for line in lines:
        whole.append(line)
        if line == "}\n":  # the end of an object: what is inside is indented
            seen.append(json.loads("".join(whole)))
            whole.clear()


def spans(workloads: Iterable[Document]) -> Mapping[str, list[Span]]:
    """From admission to the eviction or end that followed, by the job that a Workload is for, as namespace/name."""
    begun: dict[str, set[datetime]] = {}
    ended: dict[str, set[datetime]] = {}
    for each in workloads:
        job = job_of(each)
        for found in documents(each, "status", "conditions"):
            times = {"Admitted": begun, "Evicted": ended, "Finished": ended}.get(text(found, "type"))
            since = moment(text(found, "lastTransitionTime"))
            if times is not None and since is not None and text(found, "status") == "True":
                times.setdefault(job, set()).add(since)
    return {
        job: [
            (start, min((end for end in ended.get(job, ()) if end >= start), default=start)) for start in sorted(starts)
        ]
        for job, starts in begun.items()
    }


def waits(workloads: Iterable[Document]) -> Mapping[str, list[Span]]:
    """From a Workload's creation to its first admission, and from each eviction to the next, by job."""
    found = tuple(workloads)
    created = {job_of(each): moment(text(each, "metadata", "creationTimestamp")) for each in found}
    gaps: dict[str, list[Span]] = {}
    for job, held in spans(found).items():
        since = created[job]
        assert since is not None
        for start, end in held:
            gaps.setdefault(job, []).append((since, start))
            since = end
    return gaps


def gpus(workload: Document) -> int:
    """GPUs of all its Pods."""
    total = Decimal()
    for pods in documents(workload, "spec", "podSets"):
        for container in documents(pods, "template", "spec", "containers"):
            asked = value(container, "resources", "requests", "nvidia.com/gpu")
            total += integer(pods, "count") * amount(str(asked)) if asked is not None else 0
    return int(total)


def job_of(workload: Document) -> str:
    """The RayJob that it is for, as namespace/name."""
    (owner,) = documents(workload, "metadata", "ownerReferences")
    return f"{namespace_of(workload)}/{text(owner, 'name')}"


def seconds(found: Iterable[Span]) -> float:
    """Their length together."""
    return sum((end - start).total_seconds() for start, end in found)


@dataclass(frozen=True, slots=True)
class Seen:
    """What the API server told of runs and Workloads."""

    runs: list[Document]
    workloads: list[Document]

    def state(self, namespace: str, run: str) -> Document:
        """The newest state of a run, empty before there is one."""
        return next(
            (each for each in reversed(self.runs) if (namespace_of(each), name_of(each)) == (namespace, run)), {}
        )

    def whys(self, namespace: str, run: str) -> list[str]:
        """Everything that a run was seen to wait for, in order."""
        states = [each for each in self.runs if (namespace_of(each), name_of(each)) == (namespace, run)]
        return list(dict.fromkeys(why for each in states if (why := text(each, "status", "why"))))

    def of_job(self, job: str) -> list[Document]:
        """All states of a job's Workload."""
        return [each for each in self.workloads if job_of(each) == job]

    def holds(self, job: str) -> bool:
        """Whether a job holds quota now."""
        states = self.of_job(job)
        return bool(states) and condition(states[-1], "Admitted").get("status") == "True"

    def was_evicted(self, job: str) -> Document | None:
        """The condition by which Kueue took its quota away."""
        for each in self.of_job(job):
            found = condition(each, "Evicted")
            if found.get("status") == "True":
                return found
        return None
