"""Which cluster a command talks to: the one that is named, else the environment that `drivetrain up` runs here."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from drivetrain.cli.application import PLUGIN
from drivetrain.cli.session import TIMEOUT, Session

if TYPE_CHECKING:
    from drivetrain.local.environment import Addresses


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line says about the cluster."""

    kubeconfig: Path | None = None
    context: str | None = None
    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class Connection:
    """A session, and the addresses of the environment on this machine where the session talks to that."""

    session: Session
    local: "Addresses | None" = None


def connect(
    asked: Asked, *, program: str, environment: Mapping[str, str] = os.environ, timeout: float = TIMEOUT
) -> Connection:
    """Open a session. Raises DrivetrainError when no cluster is known.

    1. A kubeconfig or context that is named, or KUBECONFIG, decides.
    2. Else `drivetrain` talks to the environment that runs on this machine.
    3. `kubectl drivetrain` talks to what kubectl talks to, and to that environment only where kubectl knows nothing.
    """
    named = asked.kubeconfig is not None or asked.context is not None or bool(environment.get("KUBECONFIG"))
    known = (Path.home() / ".kube" / "config").is_file()
    here = _here(environment)
    if here is not None and not named and not (program == PLUGIN and known):
        return Connection(Session.open(kubeconfig=here.kubeconfig, namespace=asked.namespace, timeout=timeout), here)
    session = Session.open(
        kubeconfig=asked.kubeconfig, context=asked.context, namespace=asked.namespace, timeout=timeout
    )
    return Connection(session, here if here is not None and session.host == here.api else None)


def _here(environment: Mapping[str, str]) -> "Addresses | None":
    """The environment of this user that runs now."""
    try:
        from drivetrain.local import environment as local
        from drivetrain.local.statedir import default_state_dir
    except ImportError:  # only the command line is installed, without the extra `local`
        return None
    state = default_state_dir(environment, Path.home())
    return local.addresses(state) if state.settings.exists() and local.status(state) else None
