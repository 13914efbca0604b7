"""The API server's audit log as the judge of rights: what our accounts used is granted, what they hold is used.

`DRIVETRAIN_AUDIT_LOG` is its path: JSON lines, level Metadata or more. Its entries are compared with the Roles that are
on the cluster, for the operator and for the accounts that it makes for runs and endpoints.
"""

import json
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from drivetrain.api import rights
from drivetrain.api.documents import Document, documents, integer, mapping, name_of, namespace_of, sequence, text
from tests.cluster import release
from tests.cluster.kubectl import Kubectl

LOG_ENV = "DRIVETRAIN_AUDIT_LOG"
OPERATOR = f"{release.NAMESPACE}/{release.NAME}"
ROLES = "roles,clusterroles,rolebindings,clusterrolebindings"
_ACCOUNT = "system:serviceaccount:"
_FORBIDDEN = 403
_CREATED = 201


class Right(NamedTuple):
    """One verb on one resource."""

    group: str
    resource: str
    verb: str

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}" + (f".{self.group}" if self.group else "")


_UPGRADE = "tests/cluster/test_installation.py::test_an_upgrade_restarts_nothing_that_trains_or_serves"
_SCALING = (
    "tests/cluster/test_gpu_serving.py::test_replicas_share_gpus_say_that_they_run_on_the_cpu_and_follow_kubectl_scale"
)
RARE: Mapping[Right, str] = {
    Right("coordination.k8s.io", "leases", "create"): _UPGRADE,
    Right("drivetrain.dev", "trainingruns", "delete"): _UPGRADE,
    Right("ray.io", "rayclusters", "patch"): _SCALING,
    Right("ray.io", "rayservices", "delete"): _UPGRADE,
}
"""Rights of the operator that only a rare path uses, each with the nightly test in which it does."""
OPTIONAL = frozenset(
    Right(each.group, resource, verb)
    for each in rights.CLUSTER_QUEUES
    for resource in each.resources
    for verb in each.verbs
)
"""What the operator asks for and does without where it is refused."""


@dataclass(frozen=True, slots=True)
class Use:
    """What an account asked for; `namespace` is empty where it asked for the whole cluster."""

    account: str
    right: Right
    namespace: str
    name: str
    refused: str = ""
    """What the API server said instead, when it did not allow it."""

    def __str__(self) -> str:
        what = f"{self.right} {self.name}".strip()
        return f"{self.account}: {what} in {self.namespace or 'the cluster'}"


@dataclass(frozen=True, slots=True)
class Grant:
    """What an account may do; `namespace` is empty where that holds everywhere, `names` where it holds for all."""

    account: str
    right: Right
    namespace: str = ""
    names: frozenset[str] = frozenset()

    def covers(self, use: Use) -> bool:
        """Whether this allows what was asked for."""
        here = self.namespace in ("", use.namespace)
        named = not self.names or use.name in self.names
        return self.account == use.account and self.right == use.right and here and named


def uses(lines: Iterable[str]) -> frozenset[Use]:
    """What ServiceAccounts asked for; an apply that made an object needed both `patch` and `create`."""
    found: set[Use] = set()
    for line in lines:
        entry: Document = json.loads(line)
        account = text(entry, "user", "username")
        where = mapping(entry, "objectRef")
        if not account.startswith(_ACCOUNT) or not text(where, "resource"):
            continue  # people, the cluster's own parts, and paths that belong to no resource, which all may read
        code = integer(entry, "responseStatus", "code")
        subresource = text(where, "subresource")
        use = Use(
            account=account.removeprefix(_ACCOUNT).replace(":", "/"),
            right=Right(
                text(where, "apiGroup"),
                text(where, "resource") + (f"/{subresource}" if subresource else ""),
                text(entry, "verb"),
            ),
            namespace=text(where, "namespace"),
            name=text(where, "name"),
            refused=(text(entry, "responseStatus", "message") or "forbidden") if code == _FORBIDDEN else "",
        )
        found.add(use)
        if use.right.verb == "patch" and code == _CREATED:
            found.add(Use(use.account, use.right._replace(verb="create"), use.namespace, use.name))
    return frozenset(found)


def grants(objects: Iterable[Document]) -> frozenset[Grant]:
    """What Roles, ClusterRoles and their bindings give to ServiceAccounts by name."""
    found = tuple(objects)
    rules = {_identity(each): documents(each, "rules") for each in found if not _is_binding(each)}
    given: set[Grant] = set()
    for binding in filter(_is_binding, found):
        kind, name = text(binding, "roleRef", "kind"), text(binding, "roleRef", "name")
        of_role = rules.get((kind, namespace_of(binding) if kind == "Role" else "", name), ())
        for subject in documents(binding, "subjects"):
            if text(subject, "kind") != "ServiceAccount":
                continue
            account = f"{text(subject, 'namespace')}/{text(subject, 'name')}"
            for rule in of_role:
                names = frozenset(map(str, sequence(rule, "resourceNames")))
                given |= {Grant(account, right, namespace_of(binding), names) for right in _rights(rule)}
    return frozenset(given)


def findings(
    used: Iterable[Use],
    given: Iterable[Grant],
    *,
    operator: str = OPERATOR,
    refused: Mapping[str, str] = MappingProxyType({}),
    idle: Iterable[Right] = (),
) -> tuple[str, ...]:
    """What is wrong, a sentence each, sorted: nothing where used equals granted.

    Judged are the operator and the accounts that it made meanwhile. Of those, one run may end before it says a word, so
    a right is idle only if no account of a run uses it; the same holds of endpoints, and of the operator's namespaces.
    `refused` is by namespace what the API server is expected to say there when it refuses. The operator need not use
    the rights `idle`.
    """
    used, given = frozenset(used), frozenset(given)
    made = {
        f"{use.namespace}/{use.name}"
        for use in used
        if use.account == operator and use.right == Right("", "serviceaccounts", "create")
    }
    judged = {use for use in used if use.account in made | {operator}}
    allowed = {use for use in judged if not use.refused}
    found = {f"{use}: refused, {use.refused}" for use in judged - allowed if not _is_expected(use, refused)}
    found |= {f"{use}: no Role grants it" for use in allowed if not any(grant.covers(use) for grant in given)}
    found |= {f"{use}: nothing of ours reads a Secret" for use in judged if use.right.resource == "secrets"}
    busy = {(_sort(use.account, operator), use.right) for use in allowed}
    busy |= {(_sort(operator, operator), right) for right in idle}
    for grant in given:
        sort = _sort(grant.account, operator)
        if grant.account in made | {operator} and (sort, grant.right) not in busy:
            found.add(f"{sort}: {grant.right} is granted and never used")
    return tuple(sorted(found))


@dataclass(slots=True)
class Audit:
    """The comparison from a moment on; made by `begin`."""

    cluster: Kubectl
    log: Path | None
    start: int
    given: set[Grant] = field(default_factory=set)

    def look(self) -> None:
        """Takes note of what Roles give now: to be called while runs and endpoints exist, whose Roles go with them."""
        found = json.loads(self.cluster("get", ROLES, "--all-namespaces", "-o", "json"))
        self.given |= grants(documents(found, "items"))

    def findings(self, *, refused: Mapping[str, str] = MappingProxyType({}), test: str = "") -> tuple[str, ...]:
        """What is wrong so far: () where used equals granted, or where no audit log is given.

        To be called before the release or a namespace goes, since its Roles go first. `refused` is by namespace what
        the API server is expected to say there when it refuses. `test` is the test that asks, as RARE names it: rights
        that are listed for it must be used.
        """
        self.look()
        if self.log is None:
            sys.stderr.write(f"{LOG_ENV} names no audit log: rights are not compared with their use\n")
            return ()
        rare = (right for right, where in RARE.items() if where != test)
        return findings(uses(self._entries(self.log)), self.given, refused=refused, idle=rare)

    def _entries(self, log: Path) -> list[str]:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            assert size >= self.start, f"{log} was begun anew meanwhile; what was asked for before is lost"
            file.seek(self.start)
            read = file.read(size - self.start)
        return read.decode().splitlines()


def begin(cluster: Kubectl, env: Mapping[str, str] = os.environ) -> Audit:
    """Remembers where the audit log ends now; to be called before the release is installed."""
    log = Path(env[LOG_ENV]) if env.get(LOG_ENV) else None
    return Audit(cluster, log, log.stat().st_size if log else 0)


def _is_expected(use: Use, refused: Mapping[str, str]) -> bool:
    return use.right in OPTIONAL or (use.namespace in refused and refused[use.namespace] in use.refused)


def _is_binding(document: Document) -> bool:
    return text(document, "kind").endswith("Binding")


def _identity(role: Document) -> tuple[str, str, str]:
    return text(role, "kind"), namespace_of(role), name_of(role)


def _rights(rule: Document) -> Iterable[Right]:
    stated = (map(str, sequence(rule, key)) for key in ("apiGroups", "resources", "verbs"))
    return (Right(*each) for each in product(*stated))


def _sort(account: str, operator: str) -> str:
    """What the account is of: the operator, a run or an endpoint, by the first word of its name."""
    return "operator" if account == operator else account.partition("/")[2].partition("-")[0]
