"""Who is held to the cases: an API server behind which somebody carries out RayJobs and RayServices."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from drivetrain.api.dossier import Dossier
from drivetrain.api.v1alpha1.dataset import Store


@dataclass(frozen=True, slots=True)
class Party:
    """KubeRay or the agent, with a namespace to itself; the manifests are the same for both."""

    kubeconfig: Path
    namespace: str
    image: str
    """Of heads and submitters; the agent starts none."""
    store: Store
    """Where dossiers go, as Pods reach it."""
    keys: Mapping[str, str]
    """Variables that open the store."""
    dossiers: Callable[[], Sequence[Dossier]]
    """All dossiers in the store."""
    answer: Callable[[str], str]
    """What the endpoint of a RayService answers. Raises OSError while it does not."""
