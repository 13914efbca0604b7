"""The Monitor's shell."""

import asyncio

from drivetrain.api.policy import EndpointConfig
from drivetrain.serving.outcomes import OutcomeBook
from drivetrain.serving.replica import ReplicaState
from drivetrain.serving.settings import Settings
from drivetrain.store import ObjectStore


class MonitorService:
    """To be filled in next."""

    def __init__(self, settings: Settings, store: ObjectStore) -> None:
        self._book = OutcomeBook()
        self._states: dict[str, ReplicaState] = {}

    def configure(self, config: EndpointConfig) -> None:
        """Takes over a configuration."""

    def start(self) -> None:
        """Starts."""

    def heard(self, state: ReplicaState) -> None:
        """Keeps a replica's state."""
        self._states[state.replica] = state

    async def number(self, reports: list[tuple[str, str]]) -> list[int]:
        """Numbers."""
        await asyncio.sleep(0)
        return self._book.number(reports)
