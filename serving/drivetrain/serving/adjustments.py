"""What the Monitor lowers or nudges between configurations; replicas poll it every second."""

from collections.abc import Mapping

from pydantic import Field

from drivetrain.api.meta import ApiModel
from drivetrain.api.v1alpha1.lever import Exploration
from drivetrain.serving.view import Recalibration
from drivetrain.store import ObjectMissingError, ObjectStore


class Offset(ApiModel):
    """Mean of realised minus promised KPI of one policy, and the half-width of its 95 % interval."""

    offset: float
    radius: float


class Adjustments(ApiModel):
    """Small, bounded corrections; absent ones leave things as configured."""

    share: float | None = Field(default=None, ge=0, le=1)
    """Greatest exploration share that keeps maxRegret."""
    steps: int | None = Field(default=None, ge=1)
    """Greatest number of exploration steps that keeps maxRegret."""
    offsets: Mapping[str, Offset] = Field(default_factory=dict)
    """Policy to the recalibration of its expected values."""
    multipliers: Mapping[str, Mapping[str, float]] = Field(default_factory=dict)
    """Policy to portfolio metric to Lagrange multiplier."""

    def exploration_of(self, configured: Exploration) -> Exploration:
        """The configured exploration, lowered where maxRegret asks for it."""
        share = configured.share if self.share is None else min(self.share, configured.share)
        steps = configured.steps if self.steps is None else min(self.steps, configured.steps)
        return configured.model_copy(update={"share": share, "steps": steps})

    @property
    def recalibrations(self) -> dict[str, Recalibration]:
        """The offsets as decisions use them."""
        return {hash_: Recalibration(found.offset, found.radius) for hash_, found in self.offsets.items()}


def adjustments_key(folder: str) -> str:
    """The object that holds them, in a Monitor's folder."""
    return f"{folder}/adjustments.json"


def read_adjustments(store: ObjectStore, key: str) -> Adjustments:
    """The current adjustments; none while the Monitor has written none. Raises StoreError."""
    try:
        return Adjustments.model_validate_json(store.get(key))
    except ObjectMissingError:
        return Adjustments()
