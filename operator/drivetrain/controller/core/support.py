"""Which versions of Ray the operator renders clusters for: those that it was tested with."""

from drivetrain.api import image
from drivetrain.controller.core.conditions import Fact
from drivetrain.controller.manifests.ray_cluster import Runtime

SUPPORTED_RAY = ("2.60",)


def unsupported(runtime: Runtime) -> Fact | None:
    """Why no cluster is made with this image, found before anything is; None where it may be tried."""
    if runtime.ray_version.rpartition(".")[0] in SUPPORTED_RAY:
        return None
    known = " and ".join(f"{version}.*" for version in SUPPORTED_RAY)
    return Fact(
        image.REASON,
        f"Ray {runtime.ray_version} is not supported; this operator was tested with Ray {known}. "
        "Use an image with such a Ray and set cluster.rayVersion to it, or leave both out for the operator's default.",
    )
