"""Which connections an owner's Pods may make and take; all others are denied.

| from | to | port |
|---|---|---|
| KubeRay's operator | Ray nodes | 8265, 8000 |
| the submitter of a run | Ray nodes | 8265 |
| Ray nodes | Ray nodes of the same owner | all |
| Pods in namespaces labelled `drivetrain.dev/gateway: "true"` | Ray nodes of an endpoint | 8000 |
| our Pods | DNS in the cluster | 53, 5353 |
| our Pods | the API server | as set, 443 and 6443 unless told |
| our Pods | the project's S3 and MLflow | as addressed; of a Service its whole namespace |

A policy cannot name a host, so S3 and MLflow are known by their ports; the cloud's metadata address is left out.
Policies are applied after address translation: they see the port of a Pod, which need not be that of its Service. A
Service's port is let through all the same, because it may lead out of the cluster.
"""

from urllib.parse import SplitResult, urlsplit

from drivetrain.api.documents import JSON, Document
from drivetrain.api.kinds import DEPLOYMENT, NETWORK_POLICY
from drivetrain.api.names import GATEWAY_LABEL, OWNER_UID_LABEL, account_name
from drivetrain.api.v1alpha1.dataset import Dataset
from drivetrain.controller.manifests.metadata import Owner, child
from drivetrain.controller.manifests.ray_cluster import PORTS

RAY_NODE_LABEL = "ray.io/is-ray-node"
"""KubeRay sets it on heads and workers, and not on submitters."""
KUBERAY = {"app.kubernetes.io/component": "kuberay-operator"}
DNS_PORTS = (53, 5353)
"""Of the Service, and of OpenShift's Pods behind it."""
NAMESPACE_LABEL = "kubernetes.io/metadata.name"
NODE_LOCAL_DNS = "169.254.20.10/32"
METADATA = "169.254.169.254/32"
_DEFAULT_PORTS = {"https": 443, "http": 80, "s3": 443}


def network_policy(owner: Owner, data: Dataset, tracking: str | None, api_ports: tuple[int, ...]) -> Document:
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
    dns: list[JSON] = [{"namespaceSelector": {}}, {"ipBlock": {"cidr": NODE_LOCAL_DNS}}]
    addresses = _addresses(data, tracking)
    egress: list[JSON] = [
        {"to": [nodes]},
        {"to": dns, "ports": [*_ports("UDP", *DNS_PORTS), *_tcp(*DNS_PORTS)]},
        {"to": anywhere, "ports": _tcp(*sorted({*api_ports, *map(_port, addresses)}))},
    ]
    servers: list[JSON] = [
        {"namespaceSelector": {"matchLabels": {NAMESPACE_LABEL: each}}}
        for each in sorted({_namespace(address, owner.namespace) for address in addresses} - {""})
    ]
    if servers:  # a rule without peers would let everything through
        egress.append({"to": servers})
    body: Document = {
        "spec": {
            "podSelector": {"matchLabels": {OWNER_UID_LABEL: owner.uid}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": ingress,
            "egress": egress,
        }
    }
    return child(NETWORK_POLICY, account_name(owner.kind.kind, owner.name), owner, body)


def _addresses(data: Dataset, tracking: str | None) -> list[SplitResult]:
    """Where everything lies that a project names."""
    named = [
        data.store.endpoint or data.store.uri,
        *(source.endpoint or source.uri or "" for source in data.sources),
        tracking or "",
    ]
    return [parts for parts in map(urlsplit, named) if parts.scheme in _DEFAULT_PORTS]


def _port(address: SplitResult) -> int:
    return (address.port if address.scheme != "s3" else None) or _DEFAULT_PORTS[address.scheme]


def _namespace(address: SplitResult, own: str) -> str:
    """The namespace of the Service that this may be: `NAME`, `NAME.NAMESPACE`, `NAME.NAMESPACE.svc` and longer.

    Empty where it cannot be one. A domain of two parts may, and then names a namespace that hardly exists.
    """
    host = (address.hostname or "").rstrip(".")
    if address.scheme == "s3" or ":" in host:
        return ""  # a bucket, or an address
    parts = host.split(".")
    if "svc" in parts[2:]:
        return parts[parts.index("svc", 2) - 1]
    return {1: own, 2: parts[-1]}.get(len(parts), "")


def _tcp(*ports: int) -> list[JSON]:
    return _ports("TCP", *ports)


def _ports(protocol: str, *ports: int) -> list[JSON]:
    return [{"protocol": protocol, "port": port} for port in ports]
