"""A real etcd and kube-apiserver for tests marked `binaries`: no root, free ports, one pair per test session."""

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from ssl import create_default_context

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

SET_UP = Path(__file__).parents[2] / ".venv-tools" / "assets"
"""Where `make setup` puts them."""
START_DEADLINE = 60.0
TOKEN = "drivetrain-tests"


@dataclass(frozen=True, slots=True)
class ApiServer:
    """A running API server and one administrator's way in."""

    url: str
    token: str
    ca_file: Path
    kubeconfig: Path
    audit_log: Path


def binary(name: str) -> str:
    """Return the path of a control plane binary; without it the test fails, since a test left out proves nothing."""
    named = os.environ.get("KUBEBUILDER_ASSETS", "")
    for folders in (*([named] if named else []), str(SET_UP), None):  # None: those of PATH
        if (found := shutil.which(name, path=folders)) is not None:
            return found
    pytest.fail(
        f"{name} is neither in KUBEBUILDER_ASSETS nor in {SET_UP} nor in PATH. `make setup` fetches it; "
        "`pytest -m 'not binaries'` leaves out all tests that need such a program.",
        pytrace=False,
    )


def free_ports(count: int) -> tuple[int, ...]:
    """Return ports nobody listens on; all are held until all are known, so that they differ."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = tuple(int(opened.getsockname()[1]) for opened in sockets)
    for opened in sockets:
        opened.close()
    return ports


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """An empty Kubernetes API server with RBAC, CRDs and an audit log; stopped at the end of the session."""
    folder = tmp_path_factory.mktemp("api-server")
    etcd, server = binary("etcd"), binary("kube-apiserver")
    client_port, peer_port, secure_port = free_ports(3)
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    key_file = folder / "service-accounts.key"
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
    )
    tokens = folder / "tokens.csv"
    tokens.write_text(f'{TOKEN},admin,admin,"system:masters"\n')
    policy = folder / "audit.json"
    policy.write_text(json.dumps({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [{"level": "Metadata"}]}))
    started = ApiServer(
        url=f"https://127.0.0.1:{secure_port}",
        token=TOKEN,
        ca_file=folder / "certificates" / "apiserver.crt",
        kubeconfig=folder / "kubeconfig",
        audit_log=folder / "audit.log",
    )
    started.kubeconfig.write_text(_kubeconfig(started))
    etcd_url = f"http://127.0.0.1:{client_port}"
    peer_url = f"http://127.0.0.1:{peer_port}"
    commands = {
        "etcd": [
            *(etcd, "--data-dir", str(folder / "etcd"), "--unsafe-no-fsync", "--name", "default"),
            *("--listen-client-urls", etcd_url, "--advertise-client-urls", etcd_url),
            *("--listen-peer-urls", peer_url, "--initial-advertise-peer-urls", peer_url),
            *("--initial-cluster", f"default={peer_url}"),
        ],
        "kube-apiserver": [
            *(server, "--etcd-servers", etcd_url, "--cert-dir", str(started.ca_file.parent)),
            *("--bind-address", "127.0.0.1", "--secure-port", str(secure_port), "--advertise-address", "127.0.0.1"),
            *("--authorization-mode", "RBAC", "--token-auth-file", str(tokens)),
            *("--service-account-issuer", "https://kubernetes.default.svc"),
            *("--service-account-key-file", str(key_file), "--service-account-signing-key-file", str(key_file)),
            *("--service-cluster-ip-range", "10.96.0.0/16", "--endpoint-reconciler-type", "none"),
            *("--audit-policy-file", str(policy), "--audit-log-path", str(started.audit_log)),
        ],
    }
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for name, command in commands.items():
            with (folder / f"{name}.log").open("wb") as log:
                processes.append(subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=folder))
        _wait_until_ready(started, processes, folder)
        yield started
    finally:
        # Killed, not asked: nothing of theirs is kept, and an API server whose etcd leaves takes 20 s to give up.
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()


def _wait_until_ready(server: ApiServer, processes: list[subprocess.Popen[bytes]], folder: Path) -> None:
    deadline = time.monotonic() + START_DEADLINE
    while time.monotonic() < deadline:
        if any(process.poll() is not None for process in processes):
            break
        try:
            request = urllib.request.Request(f"{server.url}/readyz", headers={"Authorization": f"Bearer {TOKEN}"})
            context = create_default_context(cafile=str(server.ca_file))
            with urllib.request.urlopen(request, timeout=5, context=context) as answer:
                if answer.status == 200:
                    return
        except OSError:  # not listening yet, no certificate yet, or not ready yet (URLError is an OSError)
            time.sleep(0.1)
    tail = "".join((folder / "kube-apiserver.log").read_text().splitlines(keepends=True)[-5:])
    raise RuntimeError(f"the API server did not become ready; see {folder}:\n{tail}")


def _kubeconfig(server: ApiServer) -> str:
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "tests",
        "clusters": [
            {"name": "tests", "cluster": {"server": server.url, "certificate-authority": str(server.ca_file)}}
        ],
        "users": [{"name": "admin", "user": {"token": server.token}}],
        "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "admin", "namespace": "default"}}],
    }
    return json.dumps(document)
