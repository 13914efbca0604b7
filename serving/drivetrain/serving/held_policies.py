"""The policies that a replica holds: read, fetched, tried and opened in the background, one task each."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Final, Literal

from drivetrain.api.errors import ModelError, StoreError
from drivetrain.api.report import RUNS_ON_CPU
from drivetrain.serving.loader import Variant, load_variant, read_policy
from drivetrain.serving.settings import Settings
from drivetrain.store import ObjectStore

POLICY_SECONDS: Final = 0.2
STORE_RETRY_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class LoadState:
    """How loading one policy stands."""

    state: Literal["Loading", "Loaded", "Failed"]
    reason: str = ""
    message: str = ""


class HeldPolicies:
    """Policies by hash. All methods run on the event loop; `loaded` is called there whenever another one is ready."""

    def __init__(self, settings: Settings, store: ObjectStore, io: Executor, loaded: Callable[[], None]) -> None:
        self._settings = settings
        self._store = store
        self._io = io
        self._loaded = loaded
        self._states: dict[str, LoadState] = {}
        self._variants: dict[str, Variant] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    @property
    def states(self) -> Mapping[str, LoadState]:
        """How loading each stands."""
        return dict(self._states)

    @property
    def variants(self) -> Mapping[str, Variant]:
        """The loaded ones."""
        return self._variants

    def want(self, hashes: set[str]) -> None:
        """Lets go of all others, and begins to load those that it does not hold."""
        for hash_ in set(self._states) - hashes:
            self._states.pop(hash_)
            self._variants.pop(hash_, None)
            task = self._tasks.pop(hash_, None)
            if task is not None:
                task.cancel()
        for hash_ in sorted(hashes - set(self._states)):
            self._states[hash_] = LoadState("Loading")
            self._tasks[hash_] = asyncio.create_task(self._load(hash_))

    async def settled(self, hashes: Iterable[str], timeout: float) -> None:
        """Returns when each of them is loaded or has failed, or after `timeout` seconds."""
        tasks = [self._tasks[hash_] for hash_ in hashes if hash_ in self._tasks]
        if tasks:
            await asyncio.wait(tasks, timeout=timeout)

    def close(self) -> None:
        """Loads no more."""
        for task in self._tasks.values():
            task.cancel()

    async def _load(self, hash_: str) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                policy = await loop.run_in_executor(self._io, read_policy, self._settings.policies, hash_)
                if policy is None:  # the kubelet needs up to a minute to bring a changed ConfigMap
                    await asyncio.sleep(POLICY_SECONDS)
                    continue
                variant = await loop.run_in_executor(
                    self._io, load_variant, hash_, policy, self._store, self._settings.models
                )
            except ModelError as error:
                self._states[hash_] = LoadState("Failed", error.reason, str(error)[:1000])
                return
            except StoreError as error:
                self._states[hash_] = LoadState("Loading", error.reason, str(error)[:1000])
                await asyncio.sleep(STORE_RETRY_SECONDS)
                continue
            self._variants[hash_] = variant
            told = variant.graph.fallback if variant.graph is not None else ""
            self._states[hash_] = LoadState("Loaded", RUNS_ON_CPU if told else "", told)
            self._loaded()
            return
