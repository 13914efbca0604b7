"""The Monitor's shell: tails the log, feeds the evidence, keeps checkpoints, adjusts replicas, and reports."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from io import BytesIO
from typing import Any, Final, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from drivetrain.api import decision_log as log
from drivetrain.api import layout
from drivetrain.api.canonical import canonical_json
from drivetrain.api.errors import DrivetrainError, StoreError
from drivetrain.api.model import CONTRACT_FILE, REFERENCE_FILE, ModelContract, Reference
from drivetrain.api.policy import EndpointConfig
from drivetrain.api.report import MONITOR_FAILED, PolicyLoad, RolloutEvidence, ServingReport, Trouble
from drivetrain.serving.adjustments import Adjustments, adjustments_key, read_adjustments
from drivetrain.serving.checkpoints import Checkpoints
from drivetrain.serving.clock import now
from drivetrain.serving.evidence import Evidence, Findings
from drivetrain.serving.journal import recover
from drivetrain.serving.judged import Judged
from drivetrain.serving.loader import read_policy, unaltered
from drivetrain.serving.log_tail import LogTail
from drivetrain.serving.maturation import FIXED, PREFIXES, Maturation, watermark_of
from drivetrain.serving.outcomes import OutcomeBook
from drivetrain.serving.pacing import LONGEST, numbers, pace, turning_points
from drivetrain.serving.records import encode_segment
from drivetrain.serving.replica import ReplicaState
from drivetrain.serving.reporting import Reports
from drivetrain.serving.settings import Settings
from drivetrain.serving.shadow import shadow_evidence
from drivetrain.serving.source_files import SourcesSeen, SourceWatch
from drivetrain.serving.tuning import Regret, in_words, with_multipliers, with_offsets, with_regret
from drivetrain.store import ObjectMissingError, ObjectStore

_LOG = logging.getLogger("drivetrain.serving.monitor")

STEP_SECONDS: Final = 1.0
FAILED_SECONDS: Final = 30.0
"""Until the next step after one that failed as nobody foresaw: it reads again what came since the checkpoint."""
HEARD_WITHIN: Final = timedelta(seconds=5)
CHECKPOINT_EVERY: Final = timedelta(seconds=5)
SOURCES_EVERY: Final = 30.0
"""Seconds between looks at the sources' files; a look lists every prefix whole."""
TROUBLE_AFTER: Final = timedelta(seconds=10)
"""How long steps may fail before that is told: a request that succeeds when repeated is nobody's concern."""
BOOK_SPAN: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class _Heard:
    state: ReplicaState
    at: datetime


class Monitor:
    """One per endpoint. `configure`, `heard` and `number` run on the event loop, `step` on one thread of its own."""

    def __init__(self, settings: Settings, store: ObjectStore, writer: Reports, watch: SourceWatch) -> None:
        self._settings = settings
        self._store = store
        self._writer = writer
        self._watch = watch
        self._sources = SourcesSeen()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="monitor")
        self._book = OutcomeBook()
        self._book_filled = asyncio.Event()
        self._heard: dict[str, _Heard] = {}
        self._wanted: EndpointConfig | None = None
        self._config: EndpointConfig | None = None
        self._policies: dict[str, Judged] = {}
        self._evidence = Evidence()
        self._maturation: Maturation | None = None
        self._decisions: LogTail | None = None
        self._outcomes: LogTail | None = None
        self._adjustments = Adjustments()
        self._checkpointed = datetime.min.replace(tzinfo=now().tzinfo)
        self._checkpoints = Checkpoints(store, settings.deployment, settings.monitor)
        self._sequence = 0
        self._reported: ServingReport | None = None
        self._troubled_since: datetime | None = None
        self._rest = STEP_SECONDS
        self.trouble = ""
        self.report: ServingReport | None = None
        """The latest report."""

    def configure(self, config: EndpointConfig) -> None:
        """Takes over a configuration with the next step."""
        self._wanted = config

    def heard(self, state: ReplicaState) -> None:
        """Keeps what a replica says of itself."""
        self._heard[state.replica] = _Heard(state, now())

    async def number(self, reports: list[tuple[str, str]]) -> list[int]:
        """Numbers reports of outcomes, once the book is filled from the log."""
        await self._book_filled.wait()
        return self._book.number(reports)

    async def run(self) -> None:
        """Steps for ever; trouble is shown and tried again."""
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._look_for_ever())
            tasks.create_task(self._step_for_ever(loop))

    async def _look_for_ever(self) -> None:
        while True:
            await asyncio.to_thread(self.look)  # beside the steps: a prefix may hold many files
            await asyncio.sleep(SOURCES_EVERY if self._config is not None else STEP_SECONDS)

    def look(self) -> None:
        """Looks at the files of the stable policy's sources; what cannot be listed now keeps its last state."""
        config = self._config
        stable = self._policies.get(config.stable) if config is not None else None
        if stable is None:
            return
        try:
            self._sources = self._watch.look(stable.policy.sources)
        except Exception as error:
            why = error.reason if isinstance(error, StoreError) else type(error).__name__
            if not isinstance(error, StoreError):
                _LOG.exception("the sources cannot be listed")
            self._sources = replace(self._sources, left_out={"sources": f"cannot be listed now ({why})"})

    async def _step_for_ever(self, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            self._rest = STEP_SECONDS
            filled = self._book_filled.is_set()
            if not filled and await loop.run_in_executor(self._worker, self._guarded, self._fill_book, now()):
                self._book_filled.set()
            await loop.run_in_executor(self._worker, self._guarded, self.step, now())
            await asyncio.sleep(self._rest)

    def _guarded(self, step: Any, at: datetime) -> bool:
        """Whether it succeeded. Nothing ends the Monitor: what nobody foresaw is logged, and tried again."""
        try:
            step(at)
        except DrivetrainError as error:
            self.trouble = str(error)
            return False
        except Exception as error:
            _LOG.exception("the Monitor failed, and tries again")
            self.trouble, self._rest = _in_words(error), FAILED_SECONDS
            return False
        self.trouble = ""
        return True

    def step(self, at: datetime) -> None:
        """One look at everything. Raises StoreError or ClusterError; the next step goes on from where it got.

        After any other error it starts from the checkpoint, as a new process would: what failed may be half counted.
        What fails for a while is reported, so that whoever looks at the Deployment sees it.
        """
        try:
            self._step(at)
        except StoreError as error:
            if self._is_lasting(at):
                self._tell(at, Trouble(reason=error.reason, message=error.message[:1024]))
            raise
        except DrivetrainError:
            raise
        except Exception as error:
            config, self._config, self._maturation, self._evidence = self._config, None, None, Evidence()
            if self._is_lasting(at) and config is not None and self.report is not None:
                trouble = Trouble(reason=MONITOR_FAILED, message=_in_words(error)[:1024])
                told = {"sequence": self._sequence + 1, "at": at, "trouble": trouble}
                self._send(self.report.model_copy(update=told), config)
            raise
        self._troubled_since = None

    def _is_lasting(self, at: datetime) -> bool:
        self._troubled_since = self._troubled_since or at
        return at - self._troubled_since >= TROUBLE_AFTER

    def _step(self, at: datetime) -> None:
        recover(self._settings.journal, self._store, encode_segment)
        self._take_over()
        if self._config is None or self._maturation is None:
            return
        self._read(at)
        self._evidence.late(self._maturation.take_late())
        cohort = self._maturation.mature(self._watermark(at))
        if cohort is not None:
            self._evidence.feed(cohort)
        self._adjust()
        if at - self._checkpointed >= CHECKPOINT_EVERY:
            self._maturation.forget_reports()  # not with each step: it looks at all that wait
            if self._checkpoints.save(self._maturation.watermark, self._evidence.state()):
                self._checkpointed = at
        self._tell(at)

    def _take_over(self) -> None:
        """Follows a new configuration once its policies can be read."""
        config = self._wanted
        if config is None or config == self._config:
            return
        policies = {}
        for hash_ in {config.stable, config.baseline, *([config.candidate] if config.candidate else [])}:
            judged = self._policies.get(hash_) or self._judged(hash_)
            if judged is None:
                return
            policies[hash_] = judged
        first = self._config is None
        same_exploration = self._config is not None and self._config.exploration == config.exploration
        self._policies = policies
        self._evidence.configure(config, policies)
        if first:
            self._restore(config)
        elif not same_exploration:
            self._adjustments = self._adjustments.model_copy(update={"share": None, "steps": None})
        self._config = config  # what fails before is tried again with the next step

    def _judged(self, hash_: str) -> Judged | None:
        policy = read_policy(self._settings.policies, hash_)
        if policy is None:
            return None
        if policy.model is None:
            return Judged.of(hash_, policy)
        digest = policy.model.digest
        contract = ModelContract.model_validate_json(self._published(CONTRACT_FILE, digest, digest))
        reference = Reference.model_validate_json(self._published(REFERENCE_FILE, digest, contract.reference))
        return Judged.of(hash_, policy, contract, reference)

    def _published(self, name: str, digest: str, sha256: str) -> bytes:
        return unaltered(name, self._store.get(f"{layout.model(digest)}/{name}"), sha256)

    def _read(self, at: datetime) -> None:
        assert self._decisions is not None
        assert self._outcomes is not None
        assert self._maturation is not None
        self._take(self._outcomes, at, None, self._maturation.add_outcomes)
        self._take(self._decisions, at, FIXED, self._maturation.add_decisions)

    def _take(
        self, tail: LogTail, at: datetime, fixed: tuple[str, ...] | None, add: Callable[[pa.Table], None]
    ) -> None:
        for key in tail.poll(at, list(self._heard)):
            with contextlib.suppress(ObjectMissingError):  # tidied up since it was listed
                add(self._table(key, fixed))
            tail.took(key)

    def _table(self, key: str, fixed: tuple[str, ...] | None) -> pa.Table:
        data = BytesIO(self._store.get(key))
        if fixed is None:
            return pq.read_table(data)
        names = pq.read_schema(data).names
        return pq.read_table(data, columns=[name for name in names if name in fixed or name.startswith(PREFIXES)])

    def _watermark(self, at: datetime) -> datetime:
        assert self._maturation is not None
        return watermark_of(
            at, [heard.state.uploaded_until for heard in self._alive(at)], self._maturation.matures_after
        )

    def _alive(self, at: datetime) -> list[_Heard]:
        for name in [name for name, heard in self._heard.items() if at - heard.at > HEARD_WITHIN]:
            del self._heard[name]  # its journal is uploaded by whoever comes next on its node
        return list(self._heard.values())

    def _adjust(self) -> None:
        config = self._config
        assert config is not None
        seen = [
            Regret(heard.state.regret, heard.state.regret_rows, *heard.state.exploration)
            for heard in self._heard.values()
        ]
        adjusted = with_offsets(with_regret(self._adjustments, config, seen), self._evidence.offsets())
        adjusted, moved = with_multipliers(adjusted, self._policies, self._evidence.target_means())
        if adjusted != self._adjustments:
            self._store.put(adjustments_key(self._settings.monitor), canonical_json(adjusted).encode())
            self._adjustments = adjusted
        for hash_ in moved:
            self._evidence.restart_target_mean(hash_)

    def _restore(self, config: EndpointConfig) -> None:
        """Goes on from this cluster's checkpoint, from that of the cluster it replaces, or from the log's beginning."""
        matures_after = self._policies[config.stable].policy.objective.kpi.matures_after
        folder = self._checkpoints.newest_folder()
        self._adjustments = read_adjustments(self._store, adjustments_key(folder))
        if folder != self._settings.monitor:
            key = adjustments_key(self._settings.monitor)
            self._store.put(key, canonical_json(self._adjustments).encode())
        found = self._checkpoints.read(folder)
        if found is not None:
            self._evidence.restore(found.evidence)
        watermark = None if found is None else found.watermark
        self._maturation = Maturation(matures_after, watermark)
        self._decisions = LogTail(self._store, layout.DECISIONS, watermark)
        self._outcomes = LogTail(self._store, layout.OUTCOMES, watermark)

    def _fill_book(self, at: datetime) -> None:
        """Remembers the latest outcomes of the last day, so that repetitions keep their numbers across restarts."""
        keys = LogTail(self._store, layout.OUTCOMES, at - BOOK_SPAN).poll(at, [])
        tables: list[pa.Table] = []
        for key in sorted(keys, key=lambda key: key.rpartition("/")[0], reverse=True):  # by the hour
            tables.append(self._table(key, None).select([log.DECISION_ID, log.CONTENT, log.SEQUENCE]))
            if sum(table.num_rows for table in tables) >= self._book.limit:
                break
        for table in reversed(tables):
            for row in table.to_pylist():
                self._book.remember(row[log.DECISION_ID], row[log.CONTENT], row[log.SEQUENCE])

    def _tell(self, at: datetime, trouble: Trouble | None = None) -> None:
        if self._config is None or self._maturation is None:
            return
        self._send(self._report(at).model_copy(update={"trouble": trouble}), self._config)

    def _send(self, report: ServingReport, config: EndpointConfig) -> None:
        self.report = report
        if not self._is_due(report, config):
            return
        self._sequence += 1
        self._writer.write(report)
        self._reported = report

    def _is_due(self, report: ServingReport, config: EndpointConfig) -> bool:
        last = self._reported
        if last is None or turning_points(last, config) != turning_points(report, config):
            return True
        waited = report.at - last.at
        return waited >= LONGEST or (waited >= pace(report, config.monitoring) and numbers(last) != numbers(report))

    @staticmethod
    def _with_shadow(
        rollout: RolloutEvidence | None, config: EndpointConfig, states: list[ReplicaState]
    ) -> RolloutEvidence | None:
        """Adds what the candidate did beside the stable version, while it has no weight."""
        if rollout is None or config.weight > 0:
            return rollout
        parts = [state.shadowed for state in states if state.rollout == config.rollout]
        return rollout.model_copy(update={"shadow": shadow_evidence(parts)})

    def _in_words(self, config: EndpointConfig, at: datetime) -> dict[str, str]:
        words = self._evidence.in_words(at) | self._sources.in_words() | in_words(self._adjustments, config)
        return dict(list(words.items())[:16])

    def _report(self, at: datetime) -> ServingReport:
        config = self._config
        assert config is not None
        assert self._maturation is not None
        states = [heard.state for heard in self._alive(at)]
        weights, stables = {state.weight for state in states}, {state.stable for state in states}
        candidates = {state.candidate for state in states}
        settled = len(weights) == 1 and len(candidates) == 1 and len(stables) == 1
        weight = next(iter(weights)) if settled else None
        findings: Findings = self._evidence.findings(at, weight or 0)
        return ServingReport(
            sequence=self._sequence + 1,
            at=at,
            replicas=len(states),
            weight=weight,
            stable=next(iter(stables)) if len(stables) == 1 else None,
            loads=tuple(_load(hash_, states) for hash_ in sorted({h for state in states for h in state.loads}))[:8],
            rollout=self._with_shadow(findings.rollout, config, states),
            drift=findings.drift,
            kpi=findings.kpi,
            watermark=self._maturation.watermark,
            matured=findings.matured,
            explored=findings.explored,
            explored_since_change=findings.explored_since_change,
            data_fingerprint=self._sources.fingerprint,
            adjusted=self._in_words(config, at),
        )


def _in_words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _load(hash_: str, states: list[ReplicaState]) -> PolicyLoad:
    """Loaded once every replica holds it; Failed as soon as one cannot."""
    found = [state.loads[hash_] for state in states if hash_ in state.loads]
    held = sum(load.state == "Loaded" for load in found)
    failed = next((load for load in found if load.state == "Failed"), None)
    if failed is not None:
        return PolicyLoad(
            hash=hash_, state="Failed", replicas=held, reason=failed.reason[:64], message=failed.message[:1024]
        )
    state: Literal["Loaded", "Loading"] = "Loaded" if held == len(states) else "Loading"
    telling = next((load for load in found if load.state == state and load.message), None)
    return PolicyLoad(
        hash=hash_,
        state=state,
        replicas=held,
        reason=telling.reason[:64] if telling is not None else "",
        message=telling.message[:1024] if telling is not None else "",
    )
