"""Writes what replicas would have logged, at times of the test's choosing."""

import io
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from drivetrain.serving.decisions import Decisions, decide
from drivetrain.serving.identity import Signer
from drivetrain.serving.journal import Upload
from drivetrain.serving.outcomes import Outcome, OutcomeContract, encode_outcomes
from drivetrain.serving.records import encode_segment, frame, header
from drivetrain.serving.view import Serving
from drivetrain.store import DirectoryStore
from tests.unit.serving.worlds import probability, row

START = datetime(2026, 5, 4, 10, tzinfo=UTC)
_RIVALS = (1.75, 1.85, 1.95, 2.05, 2.15, 2.25)
Buys = Callable[[float, float, str], float]
"""Probability of a purchase, by net price, rival's price and store."""


def true_market(net: float, rival: float, store: str) -> float:
    """The market that the published model describes, without its halves' errors."""
    return float(probability(np.array(net), np.array(rival), store, half=0.0))


class Traffic:
    """Visits of one endpoint: decisions and the outcomes that they had."""

    def __init__(self, serving: Serving, seed: int = 1, *, units: int | None = None) -> None:
        self.serving = serving
        self._rng = np.random.default_rng(seed)
        self._units = units
        self._count = 0
        self._segments = 0
        self._signer = Signer(bytes(32), seed.to_bytes(6, "big"))

    def rows(self, count: int) -> list[dict[str, object]]:
        """Visits, each its own unit unless the number of units is bounded."""
        rows = []
        for number in range(self._count, self._count + count):
            unit = number if self._units is None else number % self._units
            # As in the published models' training reference.
            rival = float(self._rng.choice(_RIVALS, p=(0.15, 0.15, 0.2, 0.2, 0.15, 0.15)))
            store = str(self._rng.choice(("1", "2"), p=(0.51, 0.49)))
            rows.append(row(unit, store=store, price_rival=rival, loyalty=0.5))
        self._count += count
        return rows

    def decided(self, count: int, at: datetime) -> tuple[list[Upload], list[str], Decisions]:
        """One decided batch: its objects, ids and decisions."""
        rows = self.serving.contract.rows(self.rows(count))
        self._segments += 1
        ids = list(self._signer.issue(count, at))
        decisions = decide(rows, ids, self.serving)
        columns = header(self.serving)
        frames = [columns.header, frame(decisions, ids, at, columns.objective)]
        return encode_segment(frames, "writer", self._segments), ids, decisions

    def outcomes(
        self, ids: Sequence[str], decisions: Decisions, buys: Buys, at: datetime, *, share: float = 1.0
    ) -> Upload:
        """The outcomes of a batch, reported at `at`; only of a share of the rows."""
        reported = []
        net = decisions.actions["price"].astype(float) - decisions.actions["discount"].astype(float)
        for index, id_ in enumerate(ids):
            rival, store = decisions.rows.columns["price_rival"][index], decisions.rows.columns["store"][index]
            bought = float(self._rng.random() < buys(float(net[index]), float(rival), str(store)))
            if self._rng.random() < share:
                reported.append(Outcome(id_, {"purchase": bought}, None, None))
        contract = OutcomeContract.of(self.serving.stable.policy)
        return encode_outcomes(reported, [0] * len(reported), contract, at=at, writer="writer", sequence=self._segments)


def table(upload: Upload) -> pa.Table:
    """The rows of an object."""
    return pq.read_table(io.BytesIO(upload.data))


def put(store: DirectoryStore, uploads: Sequence[Upload]) -> None:
    """Writes objects."""
    for upload in uploads:
        store.put(upload.key, upload.data)
