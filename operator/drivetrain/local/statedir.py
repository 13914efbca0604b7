"""Where the embedded mode keeps everything: one folder per environment, and a short one for sockets."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class StateDir:
    """The paths below one state directory, all absolute."""

    root: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", self.root.absolute())

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig, for `kubectl` and the command line."""
        return self.root / "kubeconfig"

    @property
    def operator_kubeconfig(self) -> Path:
        """The operator's kubeconfig: only the rights that the chart would give it."""
        return self.root / "secrets" / "operator.kubeconfig"

    @property
    def secrets(self) -> Path:
        """Keys, certificates and tokens; readable by the owner only."""
        return self.root / "secrets"

    @property
    def logs(self) -> Path:
        """One log file per component."""
        return self.root / "logs"

    @property
    def settings(self) -> Path:
        """Ports and credentials, chosen at the first start and kept."""
        return self.secrets / "settings.json"

    @property
    def status(self) -> Path:
        """What the supervisor last saw of every component."""
        return self.root / "status.json"

    @property
    def lock(self) -> Path:
        """Held by the supervisor as long as it lives."""
        return self.root / "supervisor.lock"

    @property
    def heartbeat(self) -> Path:
        """Touched by the agent after every pass."""
        return self.root / "agent.heartbeat"

    @property
    def pods(self) -> Path:
        """What the agent has put in place for each pod: its volumes."""
        return self.root / "pods"

    @property
    def sockets(self) -> Path:
        """A folder with a short name: a socket's path may have only 107 characters."""
        digest = hashlib.sha256(str(self.root).encode()).hexdigest()[:8]
        return Path("/tmp") / f"dt{os.getuid()}-{digest}"  # noqa: S108 (per user and state directory, mode 0700)

    def log(self, component: str) -> Path:
        """The log file of a component."""
        return self.logs / f"{component}.log"


def default_state_dir(environment: Mapping[str, str], home: Path) -> StateDir:
    """Return $DRIVETRAIN_STATE_DIR, else $XDG_STATE_HOME/drivetrain, else ~/.local/state/drivetrain."""
    if chosen := environment.get("DRIVETRAIN_STATE_DIR"):
        return StateDir(Path(chosen))
    base = environment.get("XDG_STATE_HOME")
    return StateDir((Path(base) if base else home / ".local" / "state") / "drivetrain")
