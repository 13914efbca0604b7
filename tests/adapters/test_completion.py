"""Shell completion as shells and kubectl ask for it: by starting a process."""

import subprocess
import sys

import pytest


def completed(*words: str) -> str:
    """What kubectl gets to complete `kubectl drivetrain WORDS`, from a process of its own as kubectl starts it."""
    code = f"import sys; from drivetrain.cli.main import kubectl_complete as c; sys.argv[1:] = {list(words)!r}; c()"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stdout


def test_kubectl_completes_commands_with_their_help() -> None:
    told = completed("re").splitlines()
    assert [line.partition("\t")[0] for line in told] == ["retrain", "resume", "retry", ":4"]


def test_kubectl_completes_options_of_a_command() -> None:
    assert "--watch" in completed("status", "--w")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_has_a_script(shell: str) -> None:
    code = (
        f"import sys; from drivetrain.cli.main import main; sys.argv = ['drivetrain', 'completion', '{shell}']; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, f"complete_{shell}" in done.stdout) == (0, True)
