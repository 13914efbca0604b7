"""What the supervisor does with a component, for every phase; and the order in which components end."""

from pathlib import Path

import pytest

from drivetrain.local.components import SET_UP_NEEDS, Component, HttpProbe, components
from drivetrain.local.settings import PORT_NAMES, Settings
from drivetrain.local.statedir import StateDir
from drivetrain.local.supervision import (
    BackOff,
    BecomeReady,
    Phase,
    Recover,
    Retry,
    Seen,
    Start,
    Step,
    Wait,
    backoff,
    decide,
    stop_order,
)

COMPONENT = Component(
    name="mlflow", command=("true",), probe=HttpProbe("http://127.0.0.1:1"), start_seconds=60, silence_seconds=30
)


def seen(phase: Phase, **changes: object) -> Seen:
    fields: dict[str, object] = {
        "phase": phase,
        "since": 100.0,
        "alive": True,
        "answered_at": None,
        "crashes": 0,
        "needs_ready": True,
    }
    return Seen(**{**fields, **changes})  # type: ignore[arg-type]  # a table's fields


@pytest.mark.parametrize(
    ("facts", "now", "step"),
    [
        pytest.param(seen(Phase.WAITING, needs_ready=False), 100, Wait(), id="waits for what it needs"),
        pytest.param(seen(Phase.WAITING), 100, Start(), id="starts when that is ready"),
        pytest.param(seen(Phase.STARTING), 120, Wait(), id="is given time to start"),
        pytest.param(seen(Phase.STARTING, answered_at=110.0), 120, BecomeReady(), id="is ready when it answers"),
        pytest.param(
            seen(Phase.STARTING, answered_at=90.0), 120, Wait(), id="an answer of the process before it does not count"
        ),
        pytest.param(
            seen(Phase.STARTING, alive=False),
            120,
            BackOff("it ended while starting"),
            id="a start that ends is a crash",
        ),
        pytest.param(
            seen(Phase.STARTING), 161, BackOff("it was not ready after 60 s"), id="a start that hangs is a crash"
        ),
        pytest.param(seen(Phase.READY, answered_at=110.0), 120, Wait(), id="is left alone while it answers"),
        pytest.param(seen(Phase.READY, alive=False), 120, BackOff("it ended"), id="an end is noticed"),
        pytest.param(
            seen(Phase.READY, answered_at=110.0), 141, BackOff("it did not answer for 30 s"), id="silence is noticed"
        ),
        pytest.param(
            seen(Phase.READY, answered_at=160.0, crashes=2),
            161,
            Recover(),
            id="crashes are forgotten after a steady minute",
        ),
        pytest.param(seen(Phase.BACKING_OFF, crashes=1), 100.5, Wait(), id="waits before the next start"),
        pytest.param(seen(Phase.BACKING_OFF, crashes=1), 101, Retry(), id="starts again after the delay"),
        pytest.param(seen(Phase.BACKING_OFF, crashes=3), 104, Wait(), id="waits longer after more crashes"),
    ],
)
def test_a_component(facts: Seen, now: float, step: Step) -> None:
    assert decide(COMPONENT, facts, now) == step


def test_delays_grow_up_to_half_a_minute() -> None:
    delays = [backoff(crashes) for crashes in range(1, 20)]
    assert delays == sorted(delays)
    assert delays[-1] == 30


def all_components(tmp_path: Path) -> tuple[Component, ...]:
    ports = {name: 20_000 + index for index, name in enumerate(PORT_NAMES)}
    settings = Settings(
        ports=ports,
        replica_ports=12_000,
        admin_token="a",
        operator_token="b",
        ray_token="c",
        s3_access_key="d",
        s3_secret_key="e",
    )
    names = ("etcd", "kube-apiserver", "kube-controller-manager", "versitygw")
    programs = {name: Path("/bin") / name for name in names}
    return components(StateDir(tmp_path), settings, programs, sidecar=False)


def test_everything_stops_before_what_it_needs(tmp_path: Path) -> None:
    order = stop_order(all_components(tmp_path), SET_UP_NEEDS)
    position = {name: index for index, group in enumerate(order) for name in group}
    assert position["operator"] < position["kube-apiserver"] < position["etcd"]
    assert position["agent"] < position["ray"]
    assert sorted(position) == sorted(component.name for component in all_components(tmp_path))


def test_no_two_components_share_a_port_and_no_secret_is_on_a_command_line(tmp_path: Path) -> None:
    line = "\n".join(" ".join(component.command) for component in all_components(tmp_path))
    for name in ("ray_token", "s3_secret_key"):
        assert name not in line
    assert len(set(PORT_NAMES)) == len(PORT_NAMES)
