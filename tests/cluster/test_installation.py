"""The release on a node: it tests itself."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.cluster import inventory, release
from tests.cluster.images import Images
from tests.cluster.kubectl import Kubectl

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(1200)]

ENABLE = "drivetrain.dev/enabled"
GONE = 180


@contextmanager
def label(cluster: Kubectl, namespace: str) -> Iterator[None]:
    """Enables a namespace meanwhile."""
    cluster("label", "namespace", namespace, f"{ENABLE}=true", "--overwrite")
    try:
        yield
    finally:
        cluster("label", "namespace", namespace, f"{ENABLE}-")


def helm_test() -> str:
    """Runs the test of the release, which ends well only once its run is Ready; returns the verdict.

    Fails with what the test has said.
    """
    return release.helm("test", release.NAME, "--timeout=8m", seconds=500)


def test_the_release_tests_itself_in_an_enabled_namespace_and_leaves_nothing(cluster: Kubectl, images: Images) -> None:
    with release.installed(cluster, images) as system:
        before = inventory.within(system)
        with pytest.raises(AssertionError, match="NamespaceNotEnabled"):
            helm_test()
        with label(cluster, release.NAMESPACE):
            assert re.search(r"^Phase: +Succeeded$", helm_test(), re.MULTILINE)
            inventory.until_gone(system, before, GONE)


def test_without_a_store_the_test_of_the_release_fails_and_says_what_it_needs(cluster: Kubectl, images: Images) -> None:
    with release.installed(cluster, images, evaluation={"enabled": False}) as system:
        before = inventory.within(system)
        with pytest.raises(AssertionError, match=r"give test\.store .* and test\.secretName"):
            helm_test()
        inventory.until_gone(system, before, GONE)
