"""What there is on a cluster: objects of every kind that it serves, so that nothing left behind is overlooked."""

from tests.cluster.kubectl import Kubectl, until

NOISE = frozenset({"events", "events.events.k8s.io", "endpoints"})
"""Events tell of what is gone, for an hour; Endpoints mirror EndpointSlices, with a warning."""


def kinds(kubectl: Kubectl, *options: str) -> str:
    """Every kind that can be listed, as kubectl takes them."""
    named = kubectl("api-resources", "--verbs=list", "-o", "name", *options).split()
    return ",".join(sorted(set(named) - NOISE))


def within(kubectl: Kubectl) -> frozenset[str]:
    """Everything in the namespace, as `kind.group/name`."""
    return frozenset(kubectl("get", kinds(kubectl, "--namespaced=true"), "-o", "name").split())


def labelled(kubectl: Kubectl, selector: str) -> frozenset[str]:
    """Everything on the cluster with these labels, as `kind.group/name`."""
    return frozenset(kubectl("get", kinds(kubectl), "--all-namespaces", "-l", selector, "-o", "name").split())


def until_gone(kubectl: Kubectl, before: frozenset[str], seconds: float) -> None:
    """Waits until the namespace holds nothing that was not there before; fails with what is left."""
    left: frozenset[str] = frozenset()

    def gone() -> bool:
        nonlocal left
        left = within(kubectl) - before
        return not left

    try:
        until(gone, seconds, "everything is gone")
    except AssertionError as error:
        raise AssertionError(
            f"still in {kubectl.namespace} after {seconds:.0f} s: {', '.join(sorted(left))}"
        ) from error
