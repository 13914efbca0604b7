"""What is chosen once per environment and then kept: ports, tokens, keys and certificates."""

import datetime
import ipaddress
import secrets
import socket
from collections.abc import Callable, Iterable
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import BaseModel, ConfigDict, Field

from drivetrain.api.errors import ComponentError
from drivetrain.local.statedir import StateDir

PORT_NAMES = (
    "etcd",
    "etcd-peer",
    "api",
    "controllers",
    "s3",
    "mlflow",
    "operator",
    "ray-gcs",
    "ray-dashboard",
    "ray-client",
    "ray-node-manager",
    "ray-object-manager",
    "ray-agent",
    "ray-agent-grpc",
    "ray-runtime-env",
    "ray-metrics",
    "serve",
    "serve-grpc",
    "serve-metrics",
    "serve-stats",
    "serve-fallback",
    "serve-fallback-grpc",
)
REPLICA_PORTS = 200
"""Serve's replicas listen on ports of their own, HTTP and gRPC, each from a block of this many."""

# Below the range from which Linux takes the ports of outgoing connections (32768 up), so none is lost between starts.
_PORT_RANGE = (20_000, 30_000)


class Settings(BaseModel):
    """Ports by name, and the secrets of one environment."""

    model_config = ConfigDict(frozen=True)

    ports: dict[str, int]
    replica_ports: int
    admin_token: str = Field(repr=False)
    operator_token: str = Field(repr=False)
    ray_token: str = Field(repr=False)
    s3_access_key: str = Field(repr=False)
    s3_secret_key: str = Field(repr=False)

    @property
    def api_url(self) -> str:
        """Address of the Kubernetes API server."""
        return f"https://127.0.0.1:{self.ports['api']}"

    @property
    def s3_url(self) -> str:
        """Address of the S3 server."""
        return f"http://127.0.0.1:{self.ports['s3']}"

    @property
    def mlflow_url(self) -> str:
        """Address of the MLflow server."""
        return f"http://127.0.0.1:{self.ports['mlflow']}"

    @property
    def ray_url(self) -> str:
        """Address of Ray's dashboard, and of its job and Serve APIs."""
        return f"http://127.0.0.1:{self.ports['ray-dashboard']}"

    @property
    def serve_url(self) -> str:
        """Address below which every endpoint answers."""
        return f"http://127.0.0.1:{self.ports['serve']}"


def prepare(state: StateDir) -> Settings:
    """Read or choose the settings, and write keys, certificates, token file and kubeconfigs. Running it again is safe.

    A port that something else took in the meantime is replaced. Raises ComponentError when no port is free.
    """
    for folder in (state.root, state.secrets, state.logs, state.pods):
        folder.mkdir(parents=True, exist_ok=True)
    state.secrets.chmod(0o700)
    kept = Settings.model_validate_json(state.settings.read_text()) if state.settings.exists() else None
    settings = _renewed(kept)
    write_private(state.settings, settings.model_dump_json(indent=1))
    if not (state.secrets / "apiserver.crt").exists():
        _write_certificates(state.secrets)
    tokens = [(settings.admin_token, "admin", "system:masters"), (settings.operator_token, "drivetrain-operator", "")]
    write_private(
        state.secrets / "tokens.csv", "".join(f'{token},{user},{user},"{group}"\n' for token, user, group in tokens)
    )
    authority = state.secrets / "ca.crt"
    write_private(state.kubeconfig, kubeconfig(settings.api_url, authority, settings.admin_token))
    write_private(state.operator_kubeconfig, kubeconfig(settings.api_url, authority, settings.operator_token))
    return settings


def kubeconfig(server: str, authority: Path, token: str) -> str:
    """Write a kubeconfig with one cluster, one user and the namespace `default`."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "drivetrain",
        "clusters": [{"name": "drivetrain", "cluster": {"server": server, "certificate-authority": str(authority)}}],
        "users": [{"name": "drivetrain", "user": {"token": token}}],
        "contexts": [
            {"name": "drivetrain", "context": {"cluster": "drivetrain", "user": "drivetrain", "namespace": "default"}}
        ],
    }
    return yaml.safe_dump(document, sort_keys=False)


def choose_ports(names: Iterable[str], kept: dict[str, int], start: int, free: Callable[[int], bool]) -> dict[str, int]:
    """Give every name a free port of its own: the kept one if it still is, else the next one from `start` on.

    Raises ComponentError when the range is exhausted.
    """
    chosen: dict[str, int] = {}
    low, high = _PORT_RANGE
    candidates = (low + (start - low + offset) % (high - low) for offset in range(high - low))
    for name in names:
        port = kept.get(name)
        if port is None or port in chosen.values() or not free(port):
            port = next((port for port in candidates if port not in kept.values() and free(port)), None)
        if port is None:
            raise ComponentError(
                f"No free port between {low} and {high}.", remedy="Stop what listens there, or an older environment."
            )
        chosen[name] = port
    return chosen


def is_free(port: int) -> bool:
    """Whether nothing listens on this TCP port, on any address."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT is free for a server
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def write_private(path: Path, text: str) -> None:
    """Write a file that only the owner can read, in one step."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.touch(mode=0o600)
    temporary.write_text(text)
    temporary.replace(path)


def _renewed(kept: Settings | None) -> Settings:
    low, high = _PORT_RANGE
    ports = choose_ports(PORT_NAMES, kept.ports if kept else {}, low + secrets.randbelow(high - low), is_free)
    block = kept.replica_ports if kept else 12_000 + 2 * REPLICA_PORTS * secrets.randbelow(18)
    if kept:
        return kept.model_copy(update={"ports": ports})
    return Settings(
        ports=ports,
        replica_ports=block,
        admin_token=secrets.token_hex(16),
        operator_token=secrets.token_hex(16),
        ray_token=secrets.token_hex(32),
        s3_access_key=secrets.token_hex(10),
        s3_secret_key=secrets.token_hex(20),
    )


def _write_certificates(folder: Path) -> None:
    """Make a certificate authority, the API server's certificate (10 years) and the key that signs tokens."""
    begins = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)  # noqa: TID251 (the edge: certificates carry real time)
    ends = begins + datetime.timedelta(days=3650)

    def build(name: str, key: ec.EllipticCurvePrivateKey, issuer: x509.Name) -> x509.CertificateBuilder:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
        return builder.serial_number(x509.random_serial_number()).not_valid_before(begins).not_valid_after(ends)

    authority_key = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "drivetrain-local")])
    authority = build("drivetrain-local", authority_key, issuer)
    authority = authority.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    identifier = x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key())
    authority = authority.add_extension(identifier, critical=False)
    usage = x509.KeyUsage(
        digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    authority = authority.add_extension(usage, critical=True)
    server_key = ec.generate_private_key(ec.SECP256R1())
    names: list[x509.GeneralName] = [x509.DNSName(name) for name in ("localhost", "kubernetes.default.svc")]
    names += [x509.IPAddress(ipaddress.ip_address(address)) for address in ("127.0.0.1", "10.96.0.1")]
    server = build("kube-apiserver", server_key, issuer).add_extension(
        x509.SubjectAlternativeName(names), critical=False
    )
    server = server.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False
    )
    signer = ec.generate_private_key(ec.SECP256R1())
    files = {
        "ca.crt": authority.sign(authority_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM),
        "service-account.key": _pem(signer),
        "apiserver.key": _pem(server_key),
        # last: its presence says that all are there
        "apiserver.crt": server.sign(authority_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM),
    }
    for name, content in files.items():
        write_private(folder / name, content.decode())


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
