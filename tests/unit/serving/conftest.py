"""Fixtures of the endpoint's tests."""

from collections.abc import Callable
from pathlib import Path

import pytest

from drivetrain.api.policy import Policy
from drivetrain.api.v1alpha1.lever import Exploration
from drivetrain.serving.loader import Variant, load_variant
from drivetrain.serving.view import Serving
from tests.unit.serving.worlds import World, policy, publish

Load = Callable[[Policy], Variant]
View = Callable[..., Serving]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def load(world: World, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Loads a policy, its trial in a child process left out: it has tests of its own."""
    monkeypatch.setattr("drivetrain.serving.loader.try_model", lambda folder: None)

    def loaded(given: Policy) -> Variant:
        return load_variant(world.mount(given), given, world.store, world.work / "models")

    return loaded


@pytest.fixture
def view(world: World, load: Load) -> View:
    """A view that serves a logistic model as stable; `candidate` and configuration fields may be given."""

    def viewed(*, stable: Policy | None = None, candidate: Policy | None = None, **config: object) -> Serving:
        chosen = load(stable or policy(publish(world.store)))
        baseline = load(policy())
        rolled_out = load(candidate) if candidate is not None else None
        fields: dict[str, object] = {"exploration": Exploration(share=0.0)}
        if rolled_out is not None:
            fields |= {"candidate": rolled_out.hash, "weight": 50, "rollout": "r1"}
        return Serving.of(world.config(chosen.hash, baseline.hash, **(fields | config)), chosen, baseline, rolled_out)

    return viewed
