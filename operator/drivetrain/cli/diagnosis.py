"""What `drivetrain doctor` makes of what it sees: ok, warn or fail, each with what to do. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from rich.text import Text

from drivetrain.api.documents import JSON, Document, documents, mapping, name_of, sequence, text, value
from drivetrain.cli.installation import Installation
from drivetrain.cli.wording import length

Level = Literal["ok", "warn", "fail"]
STYLES: Mapping[Level, str] = {"ok": "green", "warn": "yellow", "fail": "red"}
OLDEST_KUBERNETES = (1, 34)
"""The first whose CEL library knows what the rules of our definitions use."""
LEASE_SECONDS = 60
"""A Lease that nobody renewed for so long is nobody's: twice its duration."""
SKEW_WARN = timedelta(seconds=5)
SKEW_FAIL = timedelta(minutes=5)
"""S3 refuses signatures that are 15 minutes off; tokens and certificates suffer before."""
GPU = "nvidia.com/gpu"
SUBJECT_WIDTH = len("CRD drivetraindeployments")
"""Of the longest subject but for long names of queues and projects: lines are shown before all are known."""


@dataclass(frozen=True, slots=True)
class Check:
    """One line."""

    subject: str
    level: Level
    told: str
    remedy: str = ""


def report(check: Check) -> Text:
    """A check in a line, with what to do below it where that is needed."""
    told = Text()
    told.append(f"{check.level:4}", style=STYLES[check.level])
    told.append(f"  {check.subject:{SUBJECT_WIDTH}}  {check.told}")
    if check.remedy and check.level != "ok":
        told.append(f"\n      {'':{SUBJECT_WIDTH}}  {check.remedy}", style="dim")
    return told


def kubernetes(version: Document) -> Check:
    """The API server's version."""
    shown = text(version, "gitVersion")
    digits = tuple(int("".join(filter(str.isdigit, text(version, part))) or 0) for part in ("major", "minor"))
    if digits < OLDEST_KUBERNETES:
        oldest = ".".join(map(str, OLDEST_KUBERNETES))
        return Check("Kubernetes", "fail", f"{shown} is too old", f"Use {oldest} or newer: rules of our kinds need it.")
    return Check("Kubernetes", "ok", shown)


def clock(here: datetime, there: datetime | None) -> Check:
    """This machine's clock against the API server's, which it tells to the second."""
    if there is None:
        return Check("clock", "warn", "the API server does not say what time it is")
    skew = abs(here - there)
    told = f"{length(skew)} between this machine and the API server"
    level: Level = "fail" if skew >= SKEW_FAIL else "warn" if skew >= SKEW_WARN else "ok"
    return Check("clock", level, told, "Set both by NTP: S3 refuses signatures of another time.")


def definition(wanted: Document, found: Document | None, *, readable: bool, served: bool) -> Check:
    """One of our definitions against what this version of the command line would install."""
    name = name_of(wanted)
    subject = f"CRD {name.partition('.')[0]}"
    remedy = "Install or upgrade the chart, or `kubectl apply --server-side -f crds/`."
    if not served:
        return Check(subject, "fail", f"{name} is not served", remedy)
    if not readable:
        return Check(subject, "warn", "served; you may not read the definition, so its version is not compared")
    if not established(found or {}):
        return Check(subject, "fail", "it is not established", f"See `kubectl describe crd {name}`.")
    if unlike := differences(_schema(wanted), _schema(found or {})):
        told = f"its schema is not the one of this version: {', '.join(unlike[:3])}"
        return Check(subject, "warn", told, f"{remedy} Or use the command line of the installed version.")
    return Check(subject, "ok", "served, and as this version has it")


def differences(wanted: JSON, found: JSON, path: str = "") -> list[str]:
    """The properties that one of two schemas has and the other has not."""
    if not isinstance(wanted, Mapping) or not isinstance(found, Mapping):
        return []
    result = []
    ours, theirs = mapping(wanted, "properties"), mapping(found, "properties")
    for key in sorted({*ours, *theirs}):
        here = f"{path}.{key}" if path else key
        if key not in theirs:
            result.append(f"{here} is missing there")
        elif key not in ours:
            result.append(f"{here} is unknown here")
        else:
            result += differences(ours[key], theirs[key], here)
    return result + differences(wanted.get("items"), found.get("items"), f"{path}[]")


def established(definition_: Document) -> bool:
    """Whether the API server serves a definition."""
    conditions = documents(definition_, "status", "conditions")
    return any(text(each, "type") == "Established" and text(each, "status") == "True" for each in conditions)


def operators(found: Sequence[Installation] | None, version: str, namespace: str, *, local: bool) -> tuple[Check, ...]:
    """The operators that look after the namespace, and whether they run."""
    if local:
        return (Check("operator", "ok", "the one of `drivetrain up`; `drivetrain components` shows how it stands"),)
    if found is None:
        return (Check("operator", "warn", "you may not list Deployments of all namespaces, so it was not looked for"),)
    looking = [each for each in found if not each.namespaces or namespace in each.namespaces]
    if not looking:
        other = f"; those of {', '.join(each.namespace for each in found)} watch others" if found else ""
        remedy = "Install the chart, or add the namespace to watchNamespaces."
        return (Check("operator", "fail", f"none looks after namespace {namespace}{other}", remedy),)
    checks = []
    for each in looking:
        place = f"{each.namespace}/{each.name}"
        if each.ready == 0:
            remedy = f"See `kubectl describe deployment {each.name} -n {each.namespace}`."
            checks.append(Check("operator", "fail", f"{place} has no ready Pod", remedy))
        elif each.version and each.version != version:
            told = f"{place} is version {each.version}, this command line is {version}"
            checks.append(Check("operator", "warn", told, "Use the same version: the objects may differ."))
        else:
            level: Level = "ok" if each.ready >= each.wanted else "warn"
            told = f"{place} {each.version}, {each.ready} of {each.wanted} Pods ready"
            checks.append(Check("operator", level, told, "See its Pods."))
    if len(looking) > 1:
        told = f"{len(looking)} operators look after namespace {namespace} and would fight"
        checks.append(Check("operator", "fail", told, "Give each namespace one, by watchNamespaces."))
    return tuple(checks)


def leads(lease: Document | None, now: datetime, place: str) -> Check:
    """Whether an operator holds the Lease."""
    holder, renewed = text(lease or {}, "spec", "holderIdentity"), text(lease or {}, "spec", "renewTime")
    remedy = "See the operator's log: it must reach the API server."
    if lease is None or not holder or not renewed:
        return Check("leader", "fail", f"no operator holds the Lease {place}", remedy)
    age = now - datetime.fromisoformat(renewed)
    if age > timedelta(seconds=LEASE_SECONDS):
        return Check("leader", "fail", f"{holder} last renewed the Lease {place} {length(age)} ago", remedy)
    return Check("leader", "ok", f"{holder} leads")


def kuberay(
    served: Mapping[str, bool], definition_: Document | None, operator: Document | None, *, local: bool
) -> Check:
    """KubeRay's kinds, the fields that we use, and its operator."""
    remedy = "Install KubeRay 1.6 or newer with its custom resource definitions."
    if missing := [name for name, there in served.items() if not there]:
        return Check("KubeRay", "fail", f"{', '.join(missing)} are not served", remedy)
    if definition_ is not None and not has_field(definition_, "spec", "rayClusterSpec", "authOptions"):
        told = "this KubeRay knows no token authentication (rayClusterSpec.authOptions)"
        return Check("KubeRay", "fail", told, remedy)
    if local:
        return Check("KubeRay", "ok", "its kinds are served; the agent of `drivetrain up` carries them out")
    if operator is None:
        return Check("KubeRay", "warn", "its kinds are served; its operator was not seen", "See whether it runs.")
    image = next((text(each, "image") for each in documents(operator, "spec", "template", "spec", "containers")), "")
    ready = value(operator, "status", "readyReplicas")
    if not ready:
        told = f"its operator {name_of(operator)} has no ready Pod"
        return Check("KubeRay", "fail", told, "RayJobs and RayServices stand still until it runs.")
    return Check("KubeRay", "ok", f"{name_of(operator)} runs ({image.rpartition('/')[2]})")


def kueue(served: bool, visible: bool, operator: Document | None, queues: Sequence[str]) -> Check:
    """Kueue, which is optional until a queue is named; `queues` are those that objects of ours name."""
    if not served:
        if queues:
            told = f"it is not installed, and {', '.join(queues)} is asked for"
            return Check("Kueue", "fail", told, "Install Kueue 0.15 or newer, or remove `queue` from the specs.")
        return Check("Kueue", "ok", "it is not installed, and nothing names a queue")
    if operator is not None and not value(operator, "status", "readyReplicas"):
        told = f"its manager {name_of(operator)} has no ready Pod"
        return Check("Kueue", "fail", told, "RayJobs with a queue stay suspended until it runs.")
    seen = "positions in queues are visible" if visible else "its visibility API is off: no positions in queues"
    return Check("Kueue", "ok" if visible else "warn", f"it is installed; {seen}", "Enable VisibilityOnDemand.")


def queue(local_queue: Document, pool: Document | None, *, readable: bool) -> Check:
    """A LocalQueue of the namespace and what stands behind it."""
    name, behind = name_of(local_queue), text(local_queue, "spec", "clusterQueue")
    subject = f"queue {name}"
    for each in (local_queue, pool or {}):
        for condition in documents(each, "status", "conditions"):
            if (text(condition, "type"), text(condition, "status")) == ("Active", "False"):
                told = f"{text(each, 'kind')} {name_of(each)} is not active: {text(condition, 'message')}"
                return Check(subject, "fail", told, "Ask who runs the pool.")
    if pool is None:
        if readable:
            return Check(subject, "fail", f"its ClusterQueue {behind} does not exist", "Ask who runs the pool.")
        return Check(subject, "warn", f"you may not read its ClusterQueue {behind}")
    covered = {
        str(resource)
        for group in documents(pool, "spec", "resourceGroups")
        for resource in sequence(group, "coveredResources")
    }
    if missing := {"cpu", "memory"} - covered:
        told = f"ClusterQueue {behind} does not cover {', '.join(sorted(missing))}, so it admits nothing of ours"
        return Check(subject, "fail", told, "Add them to its resourceGroups.")
    gpu = "" if GPU in covered else f"; it does not cover {GPU}, so it admits no work that asks for GPUs"
    return Check(subject, "ok" if not gpu else "warn", f"ClusterQueue {behind} is active{gpu}", f"Cover {GPU} in it.")


def namespace(document: Document | None, policies: Iterable[Document] | None) -> Check:
    """Whether the chart's admission policy lets the operator write here."""
    if document is None:
        return Check("namespace", "warn", "you may not read the namespace, so its label was not looked at")
    name = name_of(document)
    if text(document, "metadata", "labels", "drivetrain.dev/enabled") == "true":
        return Check("namespace", "ok", f"{name} is labelled drivetrain.dev/enabled=true")
    remedy = f"kubectl label namespace {name} drivetrain.dev/enabled=true"
    if policies is None:
        told = f"{name} lacks the label drivetrain.dev/enabled=true, which a cluster-wide operator needs"
        return Check("namespace", "warn", told, remedy)
    if any("drivetrain.dev/enabled" in str(mapping(each, "spec")) for each in policies):
        return Check("namespace", "fail", f"{name} is not enabled: the operator may write nothing in it", remedy)
    return Check("namespace", "ok", f"{name}: no admission policy asks for a label")


def rights(missing: Sequence[str], optional: Sequence[str]) -> tuple[Check, ...]:
    """The person's own rights."""
    checks = []
    if missing:
        remedy = "Ask for a Role with them: docs/cli.md has one."
        checks.append(Check("your rights", "fail", f"you may not {', '.join(missing)}", remedy))
    if optional:
        told = f"you may not {', '.join(optional)}; what depends on it is left out"
        checks.append(Check("your rights", "warn", told))
    return tuple(checks) or (Check("your rights", "ok", "everything that the commands use"),)


def has_field(definition_: Document, *path: str) -> bool:
    """Whether any version of a definition has a field."""
    return any(
        value(version, "schema", "openAPIV3Schema", *(step for name in path for step in ("properties", name)))
        is not None
        for version in documents(definition_, "spec", "versions")
    )


def _schema(definition_: Document) -> JSON:
    for version in documents(definition_, "spec", "versions"):
        if version.get("served") is True:
            return value(version, "schema", "openAPIV3Schema")
    return None
