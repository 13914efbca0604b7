"""Which rows train, validate and test: a stable hash of the row's group, or its time, so that rows never move.

The group of a row is, in this order: the split's column (Group); the cell in which the lever is constant, when the
row's action has no logged propensity; the randomisation unit; the row itself. A cell is one combination of Uncontrolled
and slice columns and lever values: rows of one cell share what set the lever, so a split inside cells would leak.
"""

import hashlib
from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from drivetrain.api.errors import ContractError
from drivetrain.api.v1alpha1.dataset import Dataset, Target, TrainingWindow
from drivetrain.pipelines.rows import DECIDED_AT, GROUP, HALF, PART, PROPENSITY, WEIGHT, TrainingRows

MIN_ROWS: Final = 20
"""Least rows of each part, and of each half of the training rows."""
MAX_SLICE_VALUES: Final = 50
_PART_SALT: Final = b"drivetrain part"
_GROUP_SALT: Final = b"drivetrain group"
_HALF_SALT: Final = b"drivetrain half"


def split(
    frame: pl.DataFrame, version: str, data: Dataset, unit: str | None, window: TrainingWindow | None
) -> TrainingRows:
    """The version's rows with part, half and weight.

    Raises ContractError: TargetOneClass, TargetClassMissing, TooFewRows, SliceTooManyValues.
    """
    groups = _groups(frame, data, unit)
    parts = _by_time(frame, data) if data.split.strategy == "Time" else _by_hash(groups, data)
    dropped = [column.name for column in data.columns if column.role in ("AfterAction", "Assignment")]
    rows = frame.with_columns(
        pl.Series(PART, parts),
        pl.Series(HALF, (_shares(groups, _HALF_SALT) >= 0.5).astype(np.int8)),
        pl.Series(GROUP, _hashes(groups, _GROUP_SALT).view(np.int64)),
        pl.Series(WEIGHT, _weights(frame, window)),
    ).drop(name for name in dropped if name != data.target.name)
    _check(rows, data)
    return TrainingRows(rows, version)


def _groups(frame: pl.DataFrame, data: Dataset, unit: str | None) -> list[str]:
    """Names the group of each row; equal names stay together."""
    content = [column.name for column in data.columns if column.role not in ("Derived", "AfterAction", "Assignment")]
    present = [name for name in content if name in frame.columns]
    rows = _texts(frame, present)
    if unit is not None and unit in frame.columns:
        units = _texts(frame, [unit])
        rows = np.where(frame[unit].is_null().to_numpy(), rows, units)
    if data.split.strategy == "Group" and data.split.column is not None:
        named = _texts(frame, [data.split.column])
        return list(np.where(frame[data.split.column].is_null().to_numpy(), rows, named))
    levers = [column.name for column in data.with_role("Lever")]
    around = [column.name for column in data.with_role("Uncontrolled")]
    cell = list(dict.fromkeys([*around, *data.slices, *levers]))
    return list(np.where(frame[PROPENSITY].is_null().to_numpy(), _texts(frame, cell), rows))


def _texts(frame: pl.DataFrame, names: Iterable[str]) -> npt.NDArray[np.object_]:
    fields = [pl.lit(f"{name}=") + pl.col(name).cast(pl.String).fill_null("\x00") for name in names]
    return frame.select(pl.concat_str(fields, separator="\x1f").alias("group"))["group"].to_numpy().astype(object)


def _hashes(groups: Iterable[str], salt: bytes) -> npt.NDArray[np.uint64]:
    """64 bits of each group: the same in every process and release, unlike the libraries' own hashes."""
    known: dict[str, int] = {}
    hashes = []
    for group in groups:
        number = known.get(group)
        if number is None:
            hashed = hashlib.blake2b(group.encode(), digest_size=8, key=salt).digest()
            number = known[group] = int.from_bytes(hashed)
        hashes.append(number)
    return np.array(hashes, dtype=np.uint64)


def _shares(groups: Iterable[str], salt: bytes) -> npt.NDArray[np.float64]:
    """Where each group falls in [0, 1)."""
    shares: npt.NDArray[np.float64] = (_hashes(groups, salt) >> np.uint64(11)) / 2**53
    return shares


def _by_hash(groups: list[str], data: Dataset) -> npt.NDArray[np.str_]:
    shares = _shares(groups, _PART_SALT)
    test, validation = data.split.test, data.split.validation
    return np.select([shares < test, shares < test + validation], ["test", "validation"], "train")


def _by_time(frame: pl.DataFrame, data: Dataset) -> npt.NDArray[np.str_]:
    """The latest rows test, those before them validate; rows of the same time stay together.

    Logged decisions without the column come after the history, in order of decision.
    """
    column = data.split.column
    assert column is not None
    times = frame.select(
        pl.struct(
            (pl.col(column).is_null() & pl.col(DECIDED_AT).is_not_null()).alias("live"),
            pl.col(column).alias("time"),
            pl.when(pl.col(column).is_null()).then(pl.col(DECIDED_AT)).alias("decided"),
        )
        .rank("min")
        .alias("rank")
    )["rank"].to_numpy()
    ranks = np.sort(times)
    count = len(ranks)
    test_from = ranks[min(round(count * (1 - data.split.test)), count - 1)]
    validation_from = ranks[min(round(count * (1 - data.split.test - data.split.validation)), count - 1)]
    return np.select([times >= test_from, times >= validation_from], ["test", "validation"], "train")


def _weights(frame: pl.DataFrame, window: TrainingWindow | None) -> pl.Series:
    if window is None:
        return pl.repeat(1.0, frame.height, eager=True)
    since = pl.Series([window.since]).str.to_datetime(time_unit="us", time_zone="UTC")[0]
    fresh = (frame[DECIDED_AT] >= since).fill_null(value=False)
    weights: pl.Series = fresh.cast(pl.Float64) * (1 - window.stale_weight) + window.stale_weight
    return weights


def _check(rows: pl.DataFrame, data: Dataset) -> None:
    for name in data.slices:
        values = rows[name].n_unique()
        if values > MAX_SLICE_VALUES:
            raise ContractError(
                "SliceTooManyValues",
                f"Slice column {name} has {values} values; at most {MAX_SLICE_VALUES} can be told apart.",
                remedy="Slice by a coarser column.",
            )
    training = rows.filter((pl.col(PART) == "train") & (pl.col(WEIGHT) > 0))
    counts = {
        **{part: rows.filter(pl.col(PART) == part).height for part in ("validation", "test")},
        **{f"training half {half}": training.filter(pl.col(HALF) == half).height for half in (0, 1)},
    }
    for name, count in counts.items():
        if count < MIN_ROWS:
            raise ContractError(
                "TooFewRows",
                f"{count} of {rows.height} rows fall into the {name} part; {MIN_ROWS} are needed.",
                remedy="Bring more rows, or a split whose groups are smaller.",
            )
    _check_target(training[data.target.name], "training", data.target)
    _check_target(rows.filter(pl.col(PART) == "test")[data.target.name], "test", data.target)


def _check_target(values: pl.Series, part: str, target: Target) -> None:
    if values.n_unique() < 2:
        raise ContractError(
            "TargetOneClass",
            f"Every {part} row has {target.name} = {values[0]}; there is nothing to learn or to judge.",
            remedy="Bring rows with other outcomes, or correct the target.",
        )
    absent = sorted(set(target.classes) - set(values.to_list())) if part == "training" else []
    if absent:
        raise ContractError(
            "TargetClassMissing",
            f"No training row has {target.name} = {', '.join(absent)}.",
            remedy="Bring rows of every class, or remove the class from data.target.",
        )
