"""NetworkPolicies evaluated as a network plugin would, for tests: does this connection pass?"""

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from drivetrain.api.documents import Document, documents, integer, mapping, namespace_of, sequence, text, texts


@dataclass(frozen=True)
class End:
    """A Pod, or an address outside the cluster."""

    namespace: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    address: str = ""
    """Outside the cluster."""
    namespace_labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Flow:
    """A connection that somebody opens."""

    source: End
    target: End
    port: int
    protocol: str = "TCP"


def passes(flow: Flow, policies: Sequence[Document]) -> bool:
    """Whether the policies let the connection through, at both of its ends."""
    return _allowed(flow, policies, "Egress", flow.source, flow.target) and _allowed(
        flow, policies, "Ingress", flow.target, flow.source
    )


def _allowed(flow: Flow, policies: Sequence[Document], side: str, own: End, other: End) -> bool:
    if own.address:
        return True
    selecting = [
        each
        for each in policies
        if namespace_of(each) == own.namespace
        and side in sequence(each, "spec", "policyTypes")
        and _selects(mapping(each, "spec", "podSelector"), own.labels)
    ]
    key, peers = ("egress", "to") if side == "Egress" else ("ingress", "from")
    return not selecting or any(
        _rule_matches(rule, peers, flow, other, namespace_of(each))
        for each in selecting
        for rule in documents(each, "spec", key)
    )


def _rule_matches(rule: Document, peers: str, flow: Flow, other: End, namespace: str) -> bool:
    ports = documents(rule, "ports")
    if ports and not any((text(p, "protocol"), integer(p, "port")) == (flow.protocol, flow.port) for p in ports):
        return False
    return peers not in rule or any(_peer_matches(peer, other, namespace) for peer in documents(rule, peers))


def _peer_matches(peer: Document, other: End, namespace: str) -> bool:
    if "ipBlock" in peer:
        if not other.address:
            return False  # address blocks need not cover Pods
        address = ipaddress.ip_address(other.address)
        block = mapping(peer, "ipBlock")
        excepted = [ipaddress.ip_network(str(each)) for each in sequence(block, "except")]
        return address in ipaddress.ip_network(text(block, "cidr")) and not any(address in each for each in excepted)
    if other.address:
        return False
    if "namespaceSelector" in peer:
        named = {"kubernetes.io/metadata.name": other.namespace, **other.namespace_labels}
        if not _selects(mapping(peer, "namespaceSelector"), named):
            return False
    elif other.namespace != namespace:
        return False
    return _selects(mapping(peer, "podSelector"), other.labels)


def _selects(selector: Document, labels: Mapping[str, str]) -> bool:
    for expression in documents(selector, "matchExpressions"):
        assert text(expression, "operator") == "DoesNotExist", "the only one that is rendered"
        if text(expression, "key") in labels:
            return False
    return all(labels.get(key) == wanted for key, wanted in texts(selector, "matchLabels").items())
