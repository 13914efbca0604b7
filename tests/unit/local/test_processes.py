"""Nothing of an environment is left running, and nothing else is touched."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from drivetrain.local.components import COMPONENT, MARK
from drivetrain.local.processes import of_environment, sessions_of, sweep

SLEEP = "import sys, time; print('up', flush=True); time.sleep(300)"
# a child that has lost the mark, as Ray's processes do that write their title over their environment
PARENT = f"import os, subprocess, sys; subprocess.run([sys.executable, '-c', {SLEEP!r}], env={{}})"


@contextmanager
def a_process(root: Path, component: str, program: str = SLEEP) -> Iterator[subprocess.Popen[str]]:
    """A process of the environment in `root` that has begun to sleep."""
    environment = {**os.environ, MARK: str(root), COMPONENT: component}
    command = [sys.executable, "-S", "-c", program]
    process = subprocess.Popen(command, env=environment, start_new_session=True, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_child_that_lost_the_mark_is_ended_too(tmp_path: Path) -> None:
    with a_process(tmp_path, "ray", PARENT) as parent:
        found = of_environment(tmp_path)
        assert len(found) == 2
        sessions = sessions_of(found)
        assert sessions == {parent.pid}
        assert sweep(tmp_path, grace_seconds=1) == 2
        assert of_environment(tmp_path, sessions=sessions) == ()


def test_a_child_without_a_marked_parent_is_found_by_its_session(tmp_path: Path) -> None:
    with a_process(tmp_path, "ray", PARENT) as parent:
        parent.kill()
        parent.wait()
        assert of_environment(tmp_path) == ()
        assert len(of_environment(tmp_path, sessions=[parent.pid])) == 1
        assert sweep(tmp_path, "ray", sessions=[parent.pid], grace_seconds=1) == 1


def test_other_components_and_other_environments_are_spared(tmp_path: Path) -> None:
    with (
        a_process(tmp_path, "ray") as ray,
        a_process(tmp_path, "etcd") as etcd,
        a_process(tmp_path / "b", "ray") as other,
    ):
        assert sweep(tmp_path, "ray", grace_seconds=1) == 1
        assert ray.poll() is not None
        assert etcd.poll() is None
        assert other.poll() is None
