"""What the operator's own configuration adds to every resource."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    """Defaults for what a spec leaves open."""

    ray_image: str
    """Image of Ray pods when `cluster.image` is absent."""
    ray_version: str
    """Ray's version inside that image."""
    mlflow_url: str | None = None
    """MLflow when `spec.tracking` is absent; a run without either keeps a local store."""
