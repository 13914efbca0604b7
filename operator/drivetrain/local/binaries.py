"""Finds, fetches or builds what embedded mode and tests run: `python -m drivetrain.local.binaries [FOLDER]`.

Standard library only, so that it can run while the Python packages are still being installed.

1. KUBEBUILDER_ASSETS, then PATH, if the version is new enough;
2. the cache, $XDG_CACHE_HOME/drivetrain/bin/<name>-<version>;
3. the official release, with its checksum;
4. a build from the pinned Go module, if Go is there.
"""

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from drivetrain.api.errors import ComponentError
from drivetrain.local import downloads, gobuild
from drivetrain.local.downloads import Say
from drivetrain.local.pins import CRDS, Pin, load, reported_version, this_machine

Progress = Callable[[str, str], None]
"""Called with the name of a component and what happens to it, from several threads."""


@dataclass(frozen=True, slots=True)
class Binaries:
    """Where everything lies: programs by name, the folder of KubeRay's CRD files, and folders that only tests need."""

    programs: Mapping[str, Path]
    crds: Path
    folders: Mapping[str, Path] = field(default_factory=dict)


def cache_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the folder that keeps what was fetched or built, for every checkout of this user."""
    base = environment.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "drivetrain" / "bin"


def prepare(progress: Progress, environment: Mapping[str, str] = os.environ, *, development: bool = False) -> Binaries:
    """Return the path of every pinned program and of the CRDs, fetching or building side by side what is missing.

    With `development` also of what only tests need. Raises ComponentError that names each one that cannot be had, why
    each way failed, and what to do.
    """
    pins = {name: pin for name, pin in load().items() if development or not pin.development}
    cache = cache_folder(environment)
    paths: dict[str, Path] = {}
    missing: dict[str, list[Pin]] = {}
    for pin in pins.values():
        found = cached_files(pin, cache) if pin.files else find(pin, cache, environment)
        if found:
            paths[pin.name] = found
        else:
            missing.setdefault(pin.build_target, []).append(pin)
    problems: list[str] = []

    def obtain(group: list[Pin]) -> dict[str, Path]:
        # pins of one group share one Go build, so they must not be built side by side
        return {pin.name: _obtain(pin, cache, partial(progress, pin.name)) for pin in group}

    with ThreadPoolExecutor(max_workers=max(1, len(missing))) as pool:
        for future in [pool.submit(obtain, group) for group in missing.values()]:
            try:
                paths |= future.result()
            except ComponentError as error:
                problems.append(str(error))
    if problems:
        raise ComponentError(
            "\n".join(problems),
            remedy="Allow https to the addresses above, or install Go 1.26 or newer, or put the programs on PATH or "
            "into the folder that KUBEBUILDER_ASSETS names; then run the same command again.",
        )
    crds = paths.pop(CRDS)
    folders = {name: paths.pop(name) for name in list(paths) if pins[name].files}
    return Binaries(programs=paths, crds=crds, folders=folders)


def find(pin: Pin, cache: Path, environment: Mapping[str, str]) -> Path | None:
    """Return a usable program that is on this machine already, or None."""
    assets = environment.get("KUBEBUILDER_ASSETS", "")
    for folders in (assets, environment.get("PATH", "")):
        found = shutil.which(pin.name, path=folders) if folders else None
        if found and pin.accepts(_version_of(found)):
            return Path(found)
    cached = _cached(pin, cache)
    return cached if os.access(cached, os.X_OK) else None


def _cached(pin: Pin, cache: Path) -> Path:
    return cache / f"{pin.name}-{pin.version}" / pin.name


def cached_files(pin: Pin, cache: Path) -> Path | None:
    """Return the folder of a pin's files, or None where one is missing."""
    folder = cache / f"{pin.name}-{pin.version}"
    return folder if all((folder / name).is_file() for name, _ in pin.files) else None


def _version_of(program: str) -> str:
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "0.0.0"  # it cannot be run, so no minimum accepts it
    return reported_version(done.stdout + done.stderr)


def _obtain(pin: Pin, cache: Path, say: Say) -> Path:
    reasons = []
    for way in (_released, _built):
        try:
            path = way(pin, cache, say)
        except ComponentError as error:
            reasons.append(error.message)
            say(error.message)
        else:
            say(f"ready: {path}")
            return path
    raise ComponentError(f"{pin.name} {pin.version}: " + " ".join(reasons))


def _released(pin: Pin, cache: Path, say: Say) -> Path:
    machine = this_machine()
    if machine.system not in pin.systems:
        raise ComponentError(f"There is no release of {pin.name} for {machine.system}.")
    if pin.files:
        contents = {
            name: downloads.fetch(pin.release.format(version=pin.version) + name, say, sha256=sha)
            for name, sha in pin.files
        }
        return _store_files(pin, cache, contents)
    url = machine.fill(pin.release, pin.version)
    say(f"fetching {url}")
    checksums = downloads.fetch(machine.fill(pin.checksums, pin.version), say).decode()
    began = time.monotonic()
    content = downloads.fetch(url, say, sha256=downloads.published_checksum(checksums, url.rsplit("/", 1)[1]))
    say(f"fetched {len(content) / 1e6:.0f} MB in {time.monotonic() - began:.0f} s")
    program = _cached(pin, cache)
    program.parent.mkdir(parents=True, exist_ok=True)
    temporary = program.with_name(f"{program.name}.{os.getpid()}")
    temporary.write_bytes(downloads.member(content, pin.name) if url.endswith(".tar.gz") else content)
    temporary.chmod(0o755)
    temporary.replace(program)
    return program


def _built(pin: Pin, cache: Path, say: Say) -> Path:
    go = shutil.which("go")
    if go is None:
        raise ComponentError("Go is not installed, so it cannot be built here.")
    if pin.files:
        folder = gobuild.module_folder(pin, go, say) / pin.folder
        return _store_files(pin, cache, {name: (folder / name).read_bytes() for name, _ in pin.files})
    program = _cached(pin, cache)
    if pin.command:
        shared = cache / f"{pin.command}-{pin.version}" / pin.command
        if not shared.exists():
            gobuild.build(pin, go, shared, say)
        program.parent.mkdir(parents=True, exist_ok=True)
        program.unlink(missing_ok=True)
        program.symlink_to(shared)
    else:
        gobuild.build(pin, go, program, say)
    return program


def _store_files(pin: Pin, cache: Path, contents: Mapping[str, bytes]) -> Path:
    folder = cache / f"{pin.name}-{pin.version}"
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        temporary = folder / f"{name}.{os.getpid()}"
        temporary.write_bytes(content)
        temporary.replace(folder / name)
    return folder


def _report(lines: Callable[[str], object]) -> Progress:
    began = time.monotonic()
    lock = threading.Lock()

    def progress(component: str, text: str) -> None:
        with lock:
            lines(f"[{time.monotonic() - began:5.0f} s] {component}: {text}\n")
            sys.stderr.flush()

    return progress


def link(binaries: Binaries, folder: Path) -> None:
    """Gather all programs in one folder, as KUBEBUILDER_ASSETS wants them, and the folders that tests need."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, program in {**binaries.programs, **binaries.folders}.items():
        there = folder / name
        if there != program:  # the folder itself may be where they were found
            there.unlink(missing_ok=True)
            there.symlink_to(program)


def main(arguments: Sequence[str]) -> int:
    """Make every binary ready, for tests too, link them into the folder that is named, if any; return the status."""
    try:
        binaries = prepare(_report(sys.stderr.write), development=True)
    except ComponentError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    for name, path in sorted({**binaries.programs, **binaries.folders}.items()):
        sys.stderr.write(f"{name}: {path}\n")
    for folder in arguments:
        link(binaries, Path(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
