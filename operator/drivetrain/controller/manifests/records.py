"""ConfigMaps that keep or carry records: ledgers, run specs, policies, reports, and who may patch a report."""

from collections.abc import Mapping

from drivetrain.api.canonical import canonical_json
from drivetrain.api.documents import JSON, Document, documents, text
from drivetrain.api.kinds import CONFIG_MAP, ROLE, ROLE_BINDING, SERVICE_ACCOUNT, TRAINING_RUN, Ref
from drivetrain.api.ledger import DeploymentLedger, ProjectLedger, RunLedger
from drivetrain.api.names import LEDGER_KEY, SPEC_KEY, account_name, ledger_name, policies_name, report_name, spec_name
from drivetrain.api.policy import Policy
from drivetrain.api.runspec import RunSpec
from drivetrain.controller.manifests.metadata import Owner, child


def ledger(owner: Owner, content: RunLedger | DeploymentLedger | ProjectLedger) -> Document:
    """The ConfigMap with what cannot be observed again; only the operator writes it."""
    name = ledger_name(owner.kind.kind, owner.name)
    return child(CONFIG_MAP, name, owner, {"data": {LEDGER_KEY: canonical_json(content)}})


def run_spec(owner: Owner, content: RunSpec) -> Document:
    """The immutable ConfigMap that all attempts of a run read."""
    return child(
        CONFIG_MAP, spec_name(owner.name), owner, {"immutable": True, "data": {SPEC_KEY: canonical_json(content)}}
    )


def policies(owner: Owner, content: Mapping[str, Policy]) -> Document:
    """The ConfigMap from which replicas read policies, one `<hash>.json` each."""
    data: dict[str, JSON] = {f"{name}.json": canonical_json(policy) for name, policy in sorted(content.items())}
    return child(CONFIG_MAP, policies_name(owner.name), owner, {"data": data})


def report(owner: Owner, *, annotations: Mapping[str, str] | None = None, emptied: tuple[str, ...] = ()) -> Document:
    """The ConfigMap through which Ray talks back; the operator states metadata and leaves `data` to its writers.

    `emptied` are keys of writers that are gone: stated as empty once, they become the operator's own, and vanish when
    they are no longer stated. Server-side apply has no other way to remove what somebody else wrote.
    """
    body: dict[str, JSON] = {"data": dict.fromkeys(sorted(emptied), "")} if emptied else {}
    return child(CONFIG_MAP, report_name(owner.kind.kind, owner.name), owner, body, annotations=annotations)


def reporters(
    owner: Owner, pull_secrets: tuple[str, ...], live: Mapping[Ref, Document]
) -> tuple[Document, Document, Document]:
    """ServiceAccount, Role and RoleBinding that may patch the owner's report, and nothing else.

    A run's driver also reads there which incarnation may claim the attempt; an endpoint's Monitor reads nothing.
    The account brings the Secrets that fetch images, so that no Pod template, and no cluster, changes with them.
    """
    name = account_name(owner.kind.kind, owner.name)
    body: dict[str, JSON] = {"automountServiceAccountToken": False}
    if pull_secrets:
        # Whoever states the list states all of it, and OpenShift adds a Secret to every account: that one stays.
        there = documents(live.get(Ref(SERVICE_ACCOUNT, owner.namespace, name)) or {}, "imagePullSecrets")
        named = dict.fromkeys((*(text(each, "name") for each in there), *pull_secrets))
        body["imagePullSecrets"] = [{"name": each} for each in named]
    account = child(SERVICE_ACCOUNT, name, owner, body)
    rule: Document = {
        "apiGroups": [""],
        "resources": ["configmaps"],
        "resourceNames": [report_name(owner.kind.kind, owner.name)],
        "verbs": ["get", "patch"] if owner.kind == TRAINING_RUN else ["patch"],
    }
    role = child(ROLE, name, owner, {"rules": [rule]})
    binding = child(
        ROLE_BINDING,
        name,
        owner,
        {
            "roleRef": {"apiGroup": ROLE.group, "kind": ROLE.kind, "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": owner.namespace}],
        },
    )
    return account, role, binding
