"""What the supervisor tells of its components, as it stands in status.json."""

from pydantic import BaseModel, ConfigDict


class ComponentStatus(BaseModel):
    """One component: phase is Waiting, Starting, Ready or BackingOff; `message` says why it was last restarted."""

    model_config = ConfigDict(frozen=True)

    name: str
    phase: str
    pid: int | None = None
    restarts: int = 0
    crashes: int = 0
    message: str = ""
    changed: float = 0.0
    address: str = ""


class EnvironmentStatus(BaseModel):
    """The whole environment; `supervisor` is its process id."""

    model_config = ConfigDict(frozen=True)

    supervisor: int
    components: tuple[ComponentStatus, ...]

    @property
    def ready(self) -> bool:
        """Whether everything is."""
        return all(component.phase == "Ready" for component in self.components)
