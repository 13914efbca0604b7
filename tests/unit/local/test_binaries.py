"""The pin file, the search for programs, and what is trusted. Nothing here touches the network."""

import gzip
import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from drivetrain.api.errors import ComponentError
from drivetrain.local.binaries import Binaries, find, link
from drivetrain.local.downloads import fetch, member, published_checksum
from drivetrain.local.gobuild import go_mod
from drivetrain.local.pins import CRDS, Machine, Pin, load, reported_version

ROOT = Path(__file__).parents[3]


def a_pin(**changes: str) -> Pin:
    fields = {
        "name": "etcd",
        "version": "3.6.8",
        "release": "",
        "module": "go.example/etcd/v3",
        "sum": "h1:x",
        **changes,
    }
    return Pin(**fields)  # type: ignore[arg-type]  # only text fields are changed here


def a_program(folder: Path, name: str, prints: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / name
    program.write_text(f"#!/bin/sh\necho '{prints}'\n")
    program.chmod(0o755)
    return program


@pytest.mark.parametrize("pin", load().values(), ids=lambda pin: pin.name)
def test_every_pin_names_an_https_release_and_a_module_hash(pin: Pin) -> None:
    assert pin.release.startswith("https://")
    assert pin.module
    assert pin.sum.startswith("h1:")
    assert pin.files or (pin.checksums.startswith("https://") and pin.minimum)


def test_both_kubernetes_components_have_one_version_and_one_build() -> None:
    pins = load()
    server, controllers = pins["kube-apiserver"], pins["kube-controller-manager"]
    assert (server.version, server.sum, server.build_target) == (
        controllers.version,
        controllers.sum,
        controllers.build_target,
    )


def test_the_crds_of_rayjob_rayservice_and_raycluster_are_pinned_by_content() -> None:
    assert {name: len(sha) for name, sha in load()[CRDS].files} == {
        "ray.io_rayclusters.yaml": 64,
        "ray.io_rayjobs.yaml": 64,
        "ray.io_rayservices.yaml": 64,
    }


def test_what_only_tests_need_is_not_asked_of_who_runs_the_embedded_mode() -> None:
    assert {pin.name for pin in load().values() if pin.development} == {"helm", "prometheus-crds"}


def test_addresses_are_filled_in_for_the_machine() -> None:
    template = "https://x/v{version}_{Os}_{machine}-{os}-{arch}"
    assert Machine("linux", "amd64").fill(template, "1.8.0") == "https://x/v1.8.0_Linux_x86_64-linux-amd64"
    assert Machine("darwin", "arm64").fill(template, "1.8.0") == "https://x/v1.8.0_Darwin_arm64-darwin-arm64"


@pytest.mark.parametrize(
    ("printed", "version"),
    [
        ("etcd Version: 3.6.8\nGit SHA: none", "3.6.8"),
        ("Kubernetes v1.36.3", "1.36.3"),
        ("Version  : git\nBuild    : norev", ""),
    ],
    ids=["etcd", "kubernetes", "a build that does not know its version"],
)
def test_the_version_is_read_from_what_a_program_prints(printed: str, version: str) -> None:
    assert reported_version(printed) == version


def test_assets_go_before_path_and_path_before_the_cache(tmp_path: Path) -> None:
    cached = a_program(tmp_path / "cache" / "etcd-3.6.8", "etcd", "etcd Version: 3.6.8")
    on_path = a_program(tmp_path / "path", "etcd", "etcd Version: 3.6.8")
    asset = a_program(tmp_path / "assets", "etcd", "etcd Version: 3.6.8")
    pin = a_pin(minimum="3.5.13")
    environment = {"KUBEBUILDER_ASSETS": str(asset.parent), "PATH": f"{on_path.parent}{os.pathsep}/bin"}
    assert find(pin, tmp_path / "cache", environment) == asset
    assert find(pin, tmp_path / "cache", {"PATH": str(on_path.parent)}) == on_path
    assert find(pin, tmp_path / "cache", {}) == cached


def test_a_program_that_is_too_old_is_passed_over(tmp_path: Path) -> None:
    old = a_program(tmp_path / "path", "etcd", "etcd Version: 3.4.30")
    assert find(a_pin(minimum="3.5.13"), tmp_path / "cache", {"PATH": str(old.parent)}) is None


def test_a_program_that_cannot_be_run_is_passed_over(tmp_path: Path) -> None:
    broken = tmp_path / "path" / "etcd"
    broken.parent.mkdir()
    broken.write_bytes(b"\x7fELF nonsense")
    broken.chmod(0o755)
    assert find(a_pin(minimum="3.5.13"), tmp_path / "cache", {"PATH": str(broken.parent)}) is None


def test_a_published_checksum_is_found_by_file_name() -> None:
    ours, other = "a" * 64, "b" * 64
    assert published_checksum(f"{other}  etcd-arm64.tar.gz\n{ours}  etcd-amd64.tar.gz\n", "etcd-amd64.tar.gz") == ours
    assert published_checksum(f"{ours}\n", "kube-apiserver") == ours
    with pytest.raises(ComponentError, match=r"do not name missing\.tar\.gz"):
        published_checksum(f"{ours}  etcd-amd64.tar.gz", "missing.tar.gz")


def test_anything_but_https_is_refused() -> None:
    with pytest.raises(ComponentError, match="is not https"):
        fetch("http://127.0.0.1:1/etcd", lambda text: None)


def test_a_program_is_taken_out_of_its_archive_by_name() -> None:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as files:
        entry = tarfile.TarInfo("etcd-v3.6.8-linux-amd64/etcd")
        entry.size = 4
        files.addfile(entry, io.BytesIO(b"etcd"))
    archive = gzip.compress(plain.getvalue())
    assert member(archive, "etcd") == b"etcd"
    with pytest.raises(ComponentError, match="holds no etcdctl"):
        member(archive, "etcdctl")


def test_staging_folders_become_the_published_modules_of_the_same_release() -> None:
    own = "module k8s.io/kubernetes\n\ngo 1.26.0\n\nreplace (\n\tk8s.io/api => ./staging/src/k8s.io/api\n)\n"
    written = go_mod(a_pin(module="k8s.io/kubernetes", version="1.36.3"), own)
    assert "require k8s.io/kubernetes v1.36.3" in written
    assert "replace k8s.io/api => k8s.io/api v0.36.3" in written
    assert "./staging" not in written


def test_replacements_of_a_module_are_repeated_except_those_into_its_own_tree() -> None:
    own = "module x\n\ngo 1.24\n\nreplace a.example/b => a.example/c v1.0.0\n\nreplace a.example/d => ../d\n"
    written = go_mod(a_pin(), own)
    assert "replace a.example/b => a.example/c v1.0.0" in written
    assert "../d" not in written


def test_the_search_runs_before_any_package_is_installed() -> None:
    # -S hides site-packages: what the Makefile runs beside the installation must not need it
    done = subprocess.run(
        [sys.executable, "-S", "-c", "import drivetrain.local.binaries"],
        env={"PYTHONPATH": str(ROOT / "operator")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_programs_are_gathered_in_one_folder_again_and_again(tmp_path: Path) -> None:
    found = Binaries({"etcd": a_program(tmp_path / "path", "etcd", "etcd Version: 3.6.8")}, tmp_path)
    link(found, tmp_path / "assets")
    link(found, tmp_path / "assets")
    assert (tmp_path / "assets" / "etcd").resolve() == tmp_path / "path" / "etcd"
    gathered = Binaries({"etcd": tmp_path / "assets" / "etcd"}, tmp_path)
    link(gathered, tmp_path / "assets")
    assert (tmp_path / "assets" / "etcd").exists()
