"""One replica: what it holds, how a new configuration gets in without a pause, and what it tells the Monitor."""

import asyncio
import contextlib
import dataclasses
import logging
import os
import threading
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from drivetrain.api import layout
from drivetrain.api.errors import DrivetrainError, StoreError
from drivetrain.api.policy import EndpointConfig
from drivetrain.serving import answers
from drivetrain.serving.adjustments import Adjustments, adjustments_key, read_adjustments
from drivetrain.serving.clock import now
from drivetrain.serving.decisions import decide
from drivetrain.serving.held_policies import HeldPolicies, LoadState
from drivetrain.serving.identity import KEY_BYTES, Signer, signing_key
from drivetrain.serving.journal import Journal, Upload, recover
from drivetrain.serving.loader import Variant, compiled
from drivetrain.serving.metrics import Metrics
from drivetrain.serving.outcomes import Outcome, OutcomeContract, encode_outcomes
from drivetrain.serving.records import encode_segment, frame, header
from drivetrain.serving.rows import RowProblem, Rows, RowsError
from drivetrain.serving.settings import Settings
from drivetrain.serving.shadow import Shadowed
from drivetrain.serving.view import Serving
from drivetrain.store import ObjectStore

_LOG: Final = logging.getLogger(__name__)
UPLOAD_SECONDS: Final = 0.5
ADJUSTMENT_SECONDS: Final = 1.0
RECOVERY_SECONDS: Final = 5.0
FIRST_LOAD_SECONDS: Final = 90.0

Number = Callable[[list[tuple[str, str]]], Awaitable[list[int]]]


class NotReadyError(DrivetrainError):
    """The replica holds no policy to answer with yet; ask again."""


@dataclass(frozen=True, slots=True)
class ReplicaState:
    """What a replica tells the Monitor every second."""

    replica: str
    stable: str | None
    candidate: str | None
    weight: int
    rollout: str | None
    loads: Mapping[str, LoadState]
    uploaded_until: datetime
    """Every decision of this replica before then is on the store."""
    regret: float
    """KPI expected to be lost by exploring, summed over `regret_rows` decisions under the exploration in force."""
    regret_rows: int
    exploration: tuple[float, int]
    """Share and steps in force."""
    shadowed: Shadowed
    """What the candidate did beside the stable version, since it came without weight."""


class Replica:
    """Holds variants, decides, journals. `start` and `configure` run on the event loop, `decide` on any thread."""

    def __init__(self, settings: Settings, store: ObjectStore, name: str) -> None:
        self._settings = settings
        self._store = store
        self.name = f"{name}-{os.urandom(4).hex()}"
        self.metrics = Metrics(self.name)
        self._signer = Signer(signing_key(store, os.urandom(KEY_BYTES)), os.urandom(6))
        self._journal = Journal(settings.journal, self.name)
        self._config: EndpointConfig | None = None
        self._serving: Serving | None = None
        self._objective = ""
        self._outcome_contract: OutcomeContract | None = None
        self._outcome_sequence = 0
        self._adjustments = Adjustments()
        self._io = ThreadPoolExecutor(4, thread_name_prefix="store")
        self._held = HeldPolicies(settings, store, self._io, self._swap)
        self._guard = threading.Lock()
        self._in_flight: dict[int, datetime] = {}
        self._ticket = 0
        self._regret = (0.0, 0)
        self._shadowed = Shadowed()
        self.uploaded_until = now()
        self._background: list[asyncio.Task[None]] = []
        self.uploading = asyncio.Lock()

    @property
    def serving(self) -> Serving:
        """What serves now. Raises NotReadyError."""
        if self._serving is None:
            raise NotReadyError("The endpoint is still loading its policy.", remedy="Ask again in a few seconds.")
        return self._serving

    @property
    def ready(self) -> bool:
        """Whether it can decide."""
        return self._serving is not None

    @property
    def pinned(self) -> bool:
        """Whether it serves a named version on /v2, and makes no decisions."""
        return self._config is not None and bool(self._config.pinned)

    def start(self) -> None:
        """Starts uploading, recovering and polling in the background."""
        self._background = [
            asyncio.create_task(self._repeat(UPLOAD_SECONDS, self.upload)),
            asyncio.create_task(self._repeat(ADJUSTMENT_SECONDS, self._adjust)),
            asyncio.create_task(self._repeat(RECOVERY_SECONDS, self._recover)),
        ]

    async def close(self) -> None:
        """Uploads what it can and lets the journal go."""
        self._held.close()
        for task in self._background:
            task.cancel()
        with contextlib.suppress(StoreError, OSError):  # the journal keeps it for the next replica on this node
            await self.upload()
        self._journal.close()
        self._io.shutdown(wait=False, cancel_futures=True)

    def configure(self, config: EndpointConfig) -> None:
        """Takes over a configuration: loads begin in the background, what is loaded is swapped in at once."""
        self._config = config
        self._held.want({*_acting(config), *config.load})
        self._swap()

    async def first_configuration(self, config: EndpointConfig) -> None:
        """As `configure`, then waits until it can decide, so that a new replica is never routed to before.

        Gives up waiting when loading failed or after 90 s: the report then says why, and requests get 503.
        """
        self.configure(config)
        await self._held.settled(_acting(config), FIRST_LOAD_SECONDS)

    def state(self) -> ReplicaState:
        """What the Monitor is told."""
        serving = self._serving
        config = serving.config if serving is not None else None
        return ReplicaState(
            replica=self.name,
            stable=config.stable if config else None,
            candidate=config.candidate if config else None,
            weight=config.weight if config else 0,
            rollout=config.rollout if config else None,
            loads=self._held.states,
            uploaded_until=self.uploaded_until,
            regret=self._regret[0],
            regret_rows=self._regret[1],
            exploration=(serving.exploration.share, serving.exploration.steps) if serving else (0.0, 1),
            shadowed=self._shadowed,
        )

    def decide(self, documents: object) -> bytes:
        """The answer to a batch of rows, journalled before it is returned. Safe on any thread.

        Raises RowsError, NotReadyError; OSError when the journal cannot be written, and then nothing was decided.
        """
        serving = self.serving
        objective = self._objective
        rows = serving.contract.rows(documents)
        with self._guard:
            at = now()
            ids = self._signer.issue(rows.count, at)
            self._ticket += 1
            ticket = self._ticket
            self._in_flight[ticket] = at
        try:
            decisions = decide(rows, ids, serving)
            self._journal.append(frame(decisions, ids, at, objective))
            with self._guard:
                if serving is self._serving:
                    lost, count = decisions.regret
                    self._regret = (self._regret[0] + lost, self._regret[1] + count)
                    self._shadowed += decisions.shadowed
        finally:
            with self._guard:
                del self._in_flight[ticket]
        self.metrics.decided(decisions)
        return answers.decided(decisions, ids)

    def simulate(self, documents: object, actions: object, *, candidate: bool) -> bytes:
        """The value of given settings; nothing is logged."""
        serving = self.serving
        return answers.simulated(serving.contract.rows(documents), actions, serving, candidate=candidate)

    def rows(self, documents: object) -> Rows:
        """Rows by the contract in force."""
        return self.serving.contract.rows(documents)

    async def record(self, documents: object, number: Number) -> list[tuple[Outcome, int]]:
        """Writes outcomes to the store and returns them with their numbers. Raises RowsError, StoreError."""
        contract = self._outcome_contract
        if contract is None:
            raise NotReadyError("The endpoint is still loading its policy.", remedy="Ask again in a few seconds.")
        outcomes = contract.outcomes(documents, self._signer)
        doubled = {outcome.decision_id for outcome in outcomes}
        if len(doubled) < len(outcomes):
            row = next(i for i, o in enumerate(outcomes) if o.decision_id in {p.decision_id for p in outcomes[:i]})
            raise RowsError([RowProblem(row, "decisionId", "appears twice in this call.")])
        numbers = await number([(outcome.decision_id, outcome.content) for outcome in outcomes])
        self._outcome_sequence += 1
        upload = encode_outcomes(
            outcomes, numbers, contract, at=now(), writer=self.name, sequence=self._outcome_sequence
        )
        await asyncio.get_running_loop().run_in_executor(self._io, self._store.put, upload.key, upload.data)
        return list(zip(outcomes, numbers, strict=True))

    def _swap(self) -> None:
        """Serves the latest configuration as far as its policies are loaded; else goes on as before."""
        config, held = self._config, self._held.variants
        if config is None or config.stable not in held or config.baseline not in held:
            return
        if config.candidate is not None and config.candidate not in held:
            if self._serving is not None and self._serving.config.stable == config.stable:
                return
            # A replica that starts within a rollout answers with stable; the log says that it applied no weight.
            config = config.model_copy(update={"candidate": None, "weight": 0, "rollout": None})
        adjusted = {hash_: self._adjusted(held[hash_]) for hash_ in _acting(config)}
        serving = Serving.of(
            config,
            adjusted[config.stable],
            adjusted[config.baseline],
            adjusted[config.candidate] if config.candidate else None,
            exploration=self._adjustments.exploration_of(config.exploration),
            recalibrations=self._adjustments.recalibrations,
        )
        columns = header(serving)
        self._journal.begin(columns.header)
        self._objective = columns.objective
        self._outcome_contract = OutcomeContract.of((serving.candidate or serving.stable).policy)
        with self._guard:
            if self._serving is None or serving.exploration != self._serving.exploration:
                self._regret = (0.0, 0)
            if self._serving is None or serving.config.rollout != self._serving.config.rollout:
                self._shadowed = Shadowed()
            self._serving = serving

    def _adjusted(self, variant: Variant) -> Variant:
        multipliers = self._adjustments.multipliers.get(variant.hash)
        if multipliers is None:
            return variant
        return dataclasses.replace(variant, valuation=compiled(variant.policy, multipliers))

    async def upload(self) -> None:
        """Brings everything decided so far to the store. Raises StoreError, OSError; the journal keeps what is left."""
        async with self.uploading:
            with self._guard:
                until = min([now(), *self._in_flight.values()])
            loop = asyncio.get_running_loop()
            try:
                self._journal.rotate()
            finally:  # a full disk may refuse a new segment, and has room again once the closed ones are gone
                await loop.run_in_executor(self._io, self._journal.upload_closed, self._store, self._encoded)
            self.uploaded_until = until

    def _encoded(self, frames: list[bytes], writer: str, sequence: int) -> list[Upload]:
        uploads = encode_segment(frames, writer, sequence)
        self.metrics.set_aside(sum(upload.key.startswith(layout.UNREADABLE) for upload in uploads))
        return uploads

    async def _recover(self) -> None:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(
            self._io, lambda: recover(self._settings.journal, self._store, self._encoded, skip=self.name)
        )

    async def _adjust(self) -> None:
        key = adjustments_key(self._settings.monitor)
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._io, read_adjustments, self._store, key)
        if found != self._adjustments:
            self._adjustments = found
            self._swap()

    async def _repeat(self, seconds: float, step: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await step()
            except StoreError as error:
                self.metrics.store_failed(error.reason)
            except Exception as error:
                _LOG.exception("A task in the background failed, and is tried again.")
                self.metrics.background_failed(type(error).__name__)
            await asyncio.sleep(seconds)


def _acting(config: EndpointConfig) -> tuple[str, ...]:
    """The policies that decide under a configuration."""
    return (config.stable, config.baseline, *([config.candidate] if config.candidate else []))
