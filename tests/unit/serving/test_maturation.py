"""Which decisions count, with which outcomes, and when."""

from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa

from drivetrain.api import decision_log as log
from drivetrain.api.v1alpha1.dataset import Column
from drivetrain.serving.maturation import Maturation, watermark_of
from drivetrain.serving.outcomes import Outcome, OutcomeContract, encode_outcomes
from tests.unit.serving.conftest import View
from tests.unit.serving.logs import START, Traffic, table
from tests.unit.serving.worlds import COLUMNS, policy

HOUR = timedelta(hours=1)


def report(id_: str, purchase: float, at: datetime, sequence: int = 0) -> pa.Table:
    return written(Outcome(id_, {"purchase": purchase}, None, None), at, sequence)


def written(outcome: Outcome, at: datetime, sequence: int = 0) -> pa.Table:
    minutes = Column(name="minutes", role="AfterAction", type="Float")
    contract = OutcomeContract.of(policy().model_copy(update={"columns": (*COLUMNS, minutes)}))
    return table(encode_outcomes([outcome], [sequence], contract, at=at, writer="w", sequence=1))


def two_batches(view: View) -> tuple[Maturation, list[str], list[str]]:
    traffic, maturation = Traffic(view()), Maturation(HOUR)
    early, ids_early, _ = traffic.decided(3, START)
    late, ids_late, _ = traffic.decided(3, START + timedelta(minutes=10))
    maturation.add_decisions(table(late[0]))
    maturation.add_decisions(table(early[0]))
    return maturation, ids_early, ids_late


def test_a_cohort_is_all_decisions_up_to_the_watermark_in_decision_order(view: View) -> None:
    maturation, ids_early, ids_late = two_batches(view)
    assert maturation.mature(START - timedelta(seconds=1)) is None
    first = maturation.mature(START)
    second = maturation.mature(START + HOUR)
    assert first is not None
    assert second is not None
    assert first.table.column(log.DECISION_ID).to_pylist() == sorted(ids_early)
    assert second.table.column(log.DECISION_ID).to_pylist() == sorted(ids_late)
    assert maturation.waiting == 0


def test_outcomes_do_not_bring_their_decisions_forward(view: View) -> None:
    maturation, _, ids_late = two_batches(view)
    maturation.add_outcomes(report(ids_late[0], 1.0, START + timedelta(minutes=11)))
    first = maturation.mature(START)
    assert first is not None
    assert ids_late[0] not in first.table.column(log.DECISION_ID).to_pylist()


def test_the_last_correction_made_in_time_counts_and_later_ones_are_late(view: View) -> None:
    maturation, ids, _ = two_batches(view)
    maturation.add_outcomes(report(ids[0], 1.0, START + timedelta(minutes=5)))
    maturation.add_outcomes(report(ids[0], 0.0, START + timedelta(minutes=50), sequence=1))
    maturation.add_outcomes(report(ids[1], 1.0, START + timedelta(minutes=61)))
    cohort = maturation.mature(START)
    assert cohort is not None
    assert cohort.reported("label.purchase") == [0.0, None, None]
    assert cohort.answered("purchase").tolist() == [True, False, False]
    assert maturation.late == 1
    assert maturation.take_late().tolist() == [START.timestamp()]
    assert maturation.take_late().tolist() == []


def test_of_several_reports_the_last_that_names_a_value_counts_for_it(view: View) -> None:
    maturation, ids, _ = two_batches(view)
    applied = {"price": 1.99, "discount": 0.1}
    reports = [
        Outcome(ids[0], {"purchase": 1.0}, None, None),
        Outcome(ids[0], {"minutes": 4.0}, 0.5, applied),
        Outcome(ids[0], {"minutes": 5.0}, None, None),
    ]
    for sequence in (1, 0, 2):
        maturation.add_outcomes(written(reports[sequence], START + timedelta(minutes=5), sequence))
    maturation.add_outcomes(written(Outcome(ids[1], {"minutes": 3.0}, None, applied), START))
    maturation.add_outcomes(written(Outcome(ids[2], {}, 0.4, None), START))
    cohort = maturation.mature(START)
    assert cohort is not None
    assert cohort.reported("label.purchase") == [1.0, None, None]
    assert cohort.reported("label.minutes") == [5.0, 3.0, None]
    assert cohort.reported("applied.price") == [1.99, 1.99, None]
    assert cohort.reported("kpi") == [0.5, None, 0.4]
    assert cohort.answered("purchase").tolist() == [True, False, True]


def test_a_report_in_time_waits_as_long_as_its_decision_and_no_longer(view: View) -> None:
    maturation, ids_early, ids_late = two_batches(view)
    never_seen = Traffic(view(), seed=2).decided(1, START)[1]
    for id_ in (ids_early[0], ids_late[0], *never_seen):
        maturation.add_outcomes(report(id_, 1.0, START + timedelta(minutes=20)))
    maturation.mature(START + timedelta(minutes=5))  # the watermark was held back for hours
    maturation.forget_reports()
    cohort = maturation.mature(START + HOUR)
    assert cohort is not None
    assert cohort.reported("label.purchase") == [1.0, None, None]
    assert list(maturation._reports) == []


def test_a_decision_that_shows_up_after_its_cohort_closed_is_counted_as_late(view: View) -> None:
    traffic, maturation = Traffic(view()), Maturation(HOUR)
    uploads, _, _ = traffic.decided(3, START)
    maturation.mature(START + HOUR)
    maturation.add_decisions(table(uploads[0]))
    assert maturation.mature(START + 2 * HOUR) is None
    assert maturation.late == 3


def test_a_column_that_changes_its_type_within_a_window_has_the_newest_and_null_where_that_does_not_fit(
    view: View,
) -> None:
    traffic, maturation = Traffic(view()), Maturation(HOUR)
    weeks = (pa.array(["7", "8"]), pa.array(["x", "9"]), pa.array([230, 231]))
    for number, values in enumerate(weeks):
        (upload,), _, _ = traffic.decided(2, START + timedelta(minutes=number))
        rows = table(upload)
        place = rows.column_names.index("context.week")
        maturation.add_decisions(rows.set_column(place, "context.week", values))
    cohort = maturation.mature(START + HOUR)
    assert cohort is not None
    np.testing.assert_array_equal(cohort.numbers("context.week"), [7, 8, np.nan, np.nan, 230, 231])
    assert set(cohort.texts("context.store")) <= {"1", "2"}


def test_the_watermark_waits_for_the_slowest_replica() -> None:
    now = START + 2 * HOUR
    slow = now - timedelta(minutes=5)
    assert watermark_of(now, [now, slow], HOUR) == slow - HOUR - timedelta(seconds=2)
    assert watermark_of(now, [], HOUR) == now - HOUR - timedelta(seconds=2)
