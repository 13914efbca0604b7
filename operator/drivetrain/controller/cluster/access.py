"""How to reach an API server: from a kubeconfig file, or from the ServiceAccount mounted into the Pod."""

import base64
import os
import ssl
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml

from drivetrain.api.documents import Document, documents, mapping, text
from drivetrain.api.errors import ComponentError

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True, slots=True)
class Access:
    """One API server and one identity; `token` is called for every request, because mounted tokens rotate."""

    server: str
    token: Callable[[], str]
    tls: ssl.SSLContext | None
    namespace: str


def in_cluster(environment: dict[str, str] | None = None, folder: Path = SERVICE_ACCOUNT) -> Access:
    """Return the access of the Pod's own ServiceAccount.

    Raises:
        ComponentError: this process does not run in a Pod with a mounted token.
    """
    variables = os.environ if environment is None else environment
    host, port = variables.get("KUBERNETES_SERVICE_HOST"), variables.get("KUBERNETES_SERVICE_PORT", "443")
    if not host or not (folder / "token").exists():
        raise ComponentError(
            "no Kubernetes API server is known: this process does not run in a Pod.", remedy="Give --kubeconfig."
        )
    address = f"[{host}]" if ":" in host else host
    return Access(
        server=f"https://{address}:{port}",
        token=lambda: (folder / "token").read_text().strip(),
        tls=ssl.create_default_context(cafile=str(folder / "ca.crt")),
        namespace=(folder / "namespace").read_text().strip(),
    )


def from_kubeconfig(path: Path) -> Access:
    """Return the access that the current context of a kubeconfig file gives: a token, or a client certificate.

    Raises:
        ComponentError: the file is missing or incomplete, or uses a login that a daemon cannot repeat (exec, OIDC).
    """
    try:
        config = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ComponentError(f"{path} is not a readable kubeconfig: {error}.", remedy="Check --kubeconfig.") from error
    if not isinstance(config, dict):
        raise ComponentError(f"{path} is not a kubeconfig: it holds no map.", remedy="Check --kubeconfig.")
    context = _named(config, "contexts", text(config, "current-context"), "context", path)
    cluster = _named(config, "clusters", text(context, "cluster"), "cluster", path)
    user = _named(config, "users", text(context, "user"), "user", path)
    unsupported = [key for key in ("exec", "auth-provider", "username") if key in user]
    if unsupported:
        raise ComponentError(
            f"{path} logs in by {unsupported[0]}, which the operator does not do.",
            remedy="Use a kubeconfig with a token, a tokenFile or a client certificate.",
        )
    server = text(cluster, "server").rstrip("/")
    return Access(
        server=server,
        token=_token(user, path),
        tls=_tls(cluster, user, path) if server.startswith("https:") else None,
        namespace=text(context, "namespace") or "default",
    )


def _named(config: Document, section: str, name: str, entry: str, path: Path) -> Document:
    for candidate in documents(config, section):
        if text(candidate, "name") == name:
            return mapping(candidate, entry)
    raise ComponentError(f"{path} has no entry {name!r} in {section}.", remedy="Choose a context that exists.")


def _token(user: Document, path: Path) -> Callable[[], str]:
    token_file = text(user, "tokenFile")
    if token_file:
        return lambda: (path.parent / token_file).read_text().strip()
    token = text(user, "token")
    return lambda: token


def _tls(cluster: Document, user: Document, path: Path) -> ssl.SSLContext:
    authority = text(cluster, "certificate-authority")
    context = ssl.create_default_context(
        cafile=str(path.parent / authority) if authority else None,
        cadata=base64.b64decode(text(cluster, "certificate-authority-data")).decode() or None,
    )
    if cluster.get("insecure-skip-tls-verify") is True:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    certificate, key = text(user, "client-certificate"), text(user, "client-key")
    if certificate and key:
        context.load_cert_chain(path.parent / certificate, path.parent / key)
    elif text(user, "client-certificate-data"):
        # load_cert_chain takes files only; this one is readable by its owner alone and gone at once.
        with tempfile.NamedTemporaryFile(suffix=".pem") as chain:
            chain.write(base64.b64decode(text(user, "client-certificate-data")))
            chain.write(base64.b64decode(text(user, "client-key-data")))
            chain.flush()
            context.load_cert_chain(chain.name)
    return context
