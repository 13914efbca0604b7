"""What is told of many columns."""

import numpy as np

from drivetrain.api import decision_log as log
from drivetrain.api.model import Reference, ReferenceColumn
from drivetrain.api.v1alpha1.rollout import Monitoring
from drivetrain.serving.covariates import Covariates
from tests.unit.serving.written import cohort

NAMES = [f"feature_of_the_customer_{number:03}" for number in range(40)]


def test_when_many_columns_drift_the_strongest_are_named_and_the_others_counted() -> None:
    reference = Reference(
        columns=tuple(ReferenceColumn(name=name, edges=(0.5,), counts=(500, 500)) for name in NAMES), rows=1000
    )
    covariates = Covariates(Monitoring(), reference)
    rows = 2000
    drifted = np.arange(rows) / rows
    # The later a column, the more of its values are 1.
    columns = {log.CONTEXT_PREFIX + name: (drifted < 0.8 + number / 200) * 1.0 for number, name in enumerate(NAMES)}
    covariates.feed(cohort(np.arange(rows, dtype=float), columns, [None] * rows))
    told = covariates.evidence()
    assert told.severity == "Severe"
    assert told.message == f"Drifted: {', '.join(reversed(NAMES[-8:]))} and 32 more."
    assert len(told.evidence) == 8
