"""Where tests find the control plane that they start, and what they say without one."""

from pathlib import Path

import pytest

from tests.support import api_server


def a_program(folder: Path) -> Path:
    folder.mkdir()
    program = folder / "etcd"
    program.write_text("")
    program.chmod(0o755)
    return program


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine on which nothing was set up."""
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(api_server, "SET_UP", tmp_path / "assets")
    return tmp_path


def test_a_test_without_its_control_plane_fails_and_says_what_to_do(bare: Path) -> None:
    with pytest.raises(pytest.fail.Exception, match=r"`make setup` fetches it.*-m 'not binaries'"):
        api_server.binary("etcd")


@pytest.mark.parametrize("place", ["assets", "bin"])
def test_what_was_set_up_is_found_without_being_named(bare: Path, place: str) -> None:
    program = a_program(bare / place)
    assert api_server.binary("etcd") == str(program)


def test_the_named_folder_comes_first(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_program(bare / "assets")
    named = a_program(bare / "named")
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(bare / "named"))
    assert api_server.binary("etcd") == str(named)
