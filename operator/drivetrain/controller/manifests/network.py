"""Which connections an owner's Pods may make and take; all others are denied.

| from | to | port |
|---|---|---|
| KubeRay's operator | Ray nodes | 8265, 8000 |
| the submitter of a run | Ray nodes | 8265 |
| Ray nodes | Ray nodes of the same owner | all |
| Pods in namespaces labelled `drivetrain.dev/gateway: "true"` | Ray nodes of an endpoint | 8000 |
| our Pods | DNS, the API server, and the ports of the project's S3 and MLflow | 53, 443, 6443, as addressed |

A policy cannot name a host, so S3 and MLflow are known by their ports; the cloud's metadata address is left out.
"""

from collections.abc import Iterable
from urllib.parse import urlsplit

from drivetrain.api.documents import JSON, Document
from drivetrain.api.kinds import DEPLOYMENT, NETWORK_POLICY
from drivetrain.api.names import GATEWAY_LABEL, OWNER_UID_LABEL, account_name
from drivetrain.api.v1alpha1.dataset import Dataset
from drivetrain.controller.manifests.metadata import Owner, child
from drivetrain.controller.manifests.ray_cluster import PORTS

RAY_NODE_LABEL = "ray.io/is-ray-node"
"""KubeRay sets it on heads and workers, and not on submitters."""
KUBERAY = {"app.kubernetes.io/component": "kuberay-operator"}
DNS_NAMESPACE = {"kubernetes.io/metadata.name": "kube-system"}
NODE_LOCAL_DNS = "169.254.20.10/32"
METADATA = "169.254.169.254/32"
API_PORTS = (443, 6443)
"""The API server's Service, and where it listens on most clusters: policies are applied after address translation."""
_DEFAULT_PORTS = {"https": 443, "http": 80, "s3": 443}


def network_policy(owner: Owner, data: Dataset, tracking: str | None) -> Document:
    """The policy of all Pods of one run or endpoint."""
    nodes: Document = {"podSelector": {"matchLabels": {OWNER_UID_LABEL: owner.uid, RAY_NODE_LABEL: "yes"}}}
    submitter: Document = {
        "podSelector": {
            "matchLabels": {OWNER_UID_LABEL: owner.uid},
            "matchExpressions": [{"key": RAY_NODE_LABEL, "operator": "DoesNotExist"}],
        }
    }
    kuberay: Document = {"namespaceSelector": {}, "podSelector": {"matchLabels": dict(KUBERAY)}}
    ingress: list[JSON] = [
        {"from": [kuberay], "ports": _tcp(PORTS["dashboard"], PORTS["serve"])},
        {"from": [submitter], "ports": _tcp(PORTS["dashboard"])},
        {"from": [nodes]},
    ]
    if owner.kind == DEPLOYMENT:
        gateway: Document = {"namespaceSelector": {"matchLabels": {GATEWAY_LABEL: "true"}}}
        ingress.append({"from": [gateway], "ports": _tcp(PORTS["serve"])})
    # An address block does not cover Pods with every network plugin, so Pods of any namespace are named beside it.
    anywhere: list[JSON] = [{"ipBlock": {"cidr": "0.0.0.0/0", "except": [METADATA]}}, {"namespaceSelector": {}}]
    dns: list[JSON] = [
        {"namespaceSelector": {"matchLabels": dict(DNS_NAMESPACE)}},
        {"ipBlock": {"cidr": NODE_LOCAL_DNS}},
    ]
    egress: list[JSON] = [
        {"to": [nodes]},
        {"to": dns, "ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]},
        {"to": anywhere, "ports": _tcp(*sorted({*API_PORTS, *_ports(data, tracking)}))},
    ]
    body: Document = {
        "spec": {
            "podSelector": {"matchLabels": {OWNER_UID_LABEL: owner.uid}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": ingress,
            "egress": egress,
        }
    }
    return child(NETWORK_POLICY, account_name(owner.kind.kind, owner.name), owner, body)


def _ports(data: Dataset, tracking: str | None) -> Iterable[int]:
    """The TCP ports of everything that a project names."""
    addresses = [
        data.store.endpoint or data.store.uri,
        *(source.endpoint or source.uri or "" for source in data.sources),
    ]
    for address in (*addresses, tracking or ""):
        parts = urlsplit(address)
        if parts.scheme in _DEFAULT_PORTS:
            yield (parts.port if parts.scheme != "s3" else None) or _DEFAULT_PORTS[parts.scheme]


def _tcp(*ports: int) -> list[JSON]:
    return [{"protocol": "TCP", "port": port} for port in ports]
