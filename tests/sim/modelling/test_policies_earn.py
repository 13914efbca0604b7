"""What trained policies earn on the orange juice market, as a share of what the oracle of their columns could."""

from pathlib import Path

import numpy as np
import pytest

from examples.orange_juice.market import Market
from tests.sim.modelling.orange_juice import history, run_spec, share_of_gap, trained, training_rows

TREES = [{"name": "trees", "estimator": "LightGBM"}]


@pytest.mark.parametrize("loyalty", [pytest.param(False, id="version 1"), pytest.param(True, id="version 2")])
def test_lightgbm_on_cross_fitted_halves_reaches_most_of_the_oracles_gap(loyalty: bool, tmp_path: Path) -> None:
    """Ten seeds gave 0.91 to 0.97 and 0.92 to 0.95; the canary's power check assumes 0.70."""
    draws, market = np.random.default_rng(1), Market()
    rows = training_rows(history(market, 20_000, draws, loyalty=loyalty), draws)
    spec = run_spec(loyalty=loyalty, candidates=TREES, tuning={"trials": 1}, ensemble={})
    model = trained(rows, spec, tmp_path)
    assert model.approved
    assert share_of_gap(model, spec, market, sees_loyalty=loyalty) > 0.85


def test_the_demos_own_training_beats_what_its_acts_need(tmp_path: Path) -> None:
    draws, market = np.random.default_rng(2), Market()
    spec = run_spec(loyalty=False)
    model = trained(training_rows(history(market, 20_000, draws, loyalty=False), draws), spec, tmp_path)
    assert len([trial for trial in model.trials if not trial.failure]) >= 3
    assert model.approved
    assert share_of_gap(model, spec, market, sees_loyalty=False) > 0.8
