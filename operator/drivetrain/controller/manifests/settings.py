"""What the operator's own configuration adds to every resource."""

from dataclasses import dataclass

from drivetrain.api import image
from drivetrain.api.ledger import RecordedRuntime

API_PORTS = (443, 6443)
"""The API server's Service, and where it listens on most clusters."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Defaults for what a spec leaves open."""

    ray_image: str
    """Image of Ray pods when `cluster.image` is absent."""
    ray_version: str
    """Ray's version inside that image."""
    mlflow_url: str | None = None
    """MLflow when `spec.tracking` is absent; a run without either keeps a local store."""
    python_version: str = ""
    """Python's version inside that image, as far as it matters; empty: not checked."""
    pull_secrets: tuple[str, ...] = ()
    """Secrets of every namespace for the registries of Ray images."""
    api_ports: tuple[int, ...] = API_PORTS
    """Where the API server answers, as network policies see it."""

    @property
    def runtime(self) -> RecordedRuntime:
        """What is recorded when something is rendered for the first time."""
        return RecordedRuntime(
            image=self.ray_image,
            ray_version=self.ray_version,
            python_version=self.python_version,
            version=image.VERSION.rpartition(".")[0],
        )


def listed(written: str) -> tuple[str, ...]:
    """The parts of a setting that commas separate."""
    return tuple(part.strip() for part in written.split(",") if part.strip())


def ports(written: str) -> tuple[int, ...]:
    """The ports of a setting that commas separate.

    Raises:
        ValueError: one of them is no port, or there is none.
    """
    found = tuple(map(int, listed(written)))
    if not found or not all(0 < port < 65536 for port in found):
        raise ValueError(f"{written!r} names no ports: write some between 1 and 65535, with commas between them")
    return found
