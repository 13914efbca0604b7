"""What is inside the cluster, reached from outside: through `kubectl port-forward`."""

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.cluster.kubectl import Kubectl


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def forwarded(team: Kubectl, target: str, port: int) -> Iterator[str]:
    """The address here of a Pod's port there."""
    local = free_port()
    command = ["kubectl", "-n", team.namespace, "port-forward", target, f"{local}:{port}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline(), "kubectl port-forward ended at once"
        yield f"http://127.0.0.1:{local}"
    finally:
        process.terminate()
        process.wait(10)
