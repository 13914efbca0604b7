"""Ports and credentials that are chosen once and kept."""

import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from cryptography import x509

from drivetrain.api.errors import ComponentError
from drivetrain.local.settings import Settings, choose_ports, is_free, prepare
from drivetrain.local.statedir import StateDir, default_state_dir


def only(*ports: int) -> Callable[[int], bool]:
    return lambda port: port in ports


def test_a_kept_port_stays_while_it_is_free() -> None:
    assert choose_ports(["etcd"], {"etcd": 20_007}, 20_000, lambda port: True) == {"etcd": 20_007}


def test_a_port_that_somebody_took_is_replaced_by_the_next_free_one() -> None:
    assert choose_ports(["etcd"], {"etcd": 20_007}, 20_000, only(20_009)) == {"etcd": 20_009}


def test_names_never_share_a_port() -> None:
    chosen = choose_ports(["a", "b", "c"], {"a": 20_001, "b": 20_001}, 20_001, lambda port: True)
    assert len(set(chosen.values())) == 3


def test_a_full_range_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(ComponentError, match="No free port"):
        choose_ports(["a"], {}, 20_000, lambda port: False)


def test_a_listening_port_is_not_free() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        assert not is_free(server.getsockname()[1])


def test_preparing_twice_gives_the_same_settings_and_keys(tmp_path: Path) -> None:
    state = StateDir(tmp_path / "state")
    first = prepare(state)
    key = (state.secrets / "apiserver.key").read_bytes()
    assert prepare(state) == first
    assert (state.secrets / "apiserver.key").read_bytes() == key


def test_secrets_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    state = StateDir(tmp_path / "state")
    prepare(state)
    for file in (*state.secrets.iterdir(), state.kubeconfig):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


def test_the_kubeconfig_trusts_the_certificate_that_the_server_shows(tmp_path: Path) -> None:
    state = StateDir(tmp_path / "state")
    settings = prepare(state)
    config = yaml.safe_load(state.kubeconfig.read_text())
    cluster = config["clusters"][0]["cluster"]
    assert cluster["server"] == settings.api_url
    authority = x509.load_pem_x509_certificate(Path(cluster["certificate-authority"]).read_bytes())
    shown = x509.load_pem_x509_certificate((state.secrets / "apiserver.crt").read_bytes())
    shown.verify_directly_issued_by(authority)


def test_settings_do_not_show_their_secrets(tmp_path: Path) -> None:
    settings = prepare(StateDir(tmp_path / "state"))
    assert settings.admin_token not in repr(settings)
    assert Settings.model_validate_json(settings.model_dump_json()) == settings


def test_the_state_directory_follows_the_users_wishes(tmp_path: Path) -> None:
    assert default_state_dir({"DRIVETRAIN_STATE_DIR": "/a/b"}, tmp_path).root == Path("/a/b")
    assert default_state_dir({"XDG_STATE_HOME": "/a"}, tmp_path).root == Path("/a/drivetrain")
    assert default_state_dir({}, tmp_path).root == tmp_path / ".local" / "state" / "drivetrain"


def test_a_socket_fits_below_the_short_folder_of_any_state_directory() -> None:
    deep = StateDir(Path("/very").joinpath(*["deep"] * 30))
    longest = deep.sockets / "ray" / "session_2026-01-01_00-00-00_000000_1000000" / "sockets" / "plasma_store.1"
    assert len(str(longest)) < 107
