"""Builds from pinned Go modules: go.mod is written from the module's own, Go verifies every download.

Standard library only.
"""

import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from importlib import resources
from pathlib import Path

from drivetrain.api.errors import ComponentError
from drivetrain.local.downloads import Say
from drivetrain.local.pins import Pin

_STAGING = re.compile(r"^\s*(?:replace\s+)?(k8s\.io/\S+) => \./staging/", re.MULTILINE)
_BLOCK = re.compile(r"^(?:replace|exclude) \(\n.*?^\)$|^(?:replace|exclude) [^(\n]+$", re.MULTILINE | re.DOTALL)


def module_folder(pin: Pin, go: str, say: Say) -> Path:
    """Download a pinned module and return its folder; its hash must be the pinned one. Raises ComponentError."""
    say(f"downloading the Go module {pin.module}@v{pin.version}")
    # outside any module, and so that a go.mod above the temporary folder cannot interfere
    with tempfile.TemporaryDirectory() as folder:
        output = _run([go, "mod", "download", "-json", f"{pin.module}@v{pin.version}"], Path(folder), say, quiet=True)
    entry = json.loads(output)
    if entry.get("Sum") != pin.sum:
        raise ComponentError(
            f"The Go module {pin.module}@v{pin.version} has the hash {entry.get('Sum')}, not the pinned {pin.sum}.",
            remedy="Do not use it; find out which of the two is wrong.",
        )
    return Path(entry["Dir"])


def go_mod(pin: Pin, module_go_mod: str) -> str:
    """Write the go.mod of a build of `pin`, from the module's own.

    Replacements count only in the main module, so they are repeated here; those that point into the module's own tree
    (Kubernetes' staging folders) become the published module of the same release (v1.36.3 is v0.36.3 there).
    """
    staging = _STAGING.findall(module_go_mod)
    staged = "v0." + pin.version.split(".", 1)[1]
    own = [] if staging else [block for block in _BLOCK.findall(module_go_mod) if "=> ." not in block]
    version = re.search(r"^go (\S+)$", module_go_mod, re.MULTILINE)
    lines = [
        "module build",
        "",
        f"go {version.group(1) if version else '1.25.0'}",
        "",
        f"require {pin.module} v{pin.version}",
    ]
    lines += [f"require k8s.io/component-base {staged}"] if staging else []
    lines += [f"replace {name} => {name} {staged}" for name in sorted(set(staging))]
    return "\n".join([*lines, *own]) + "\n"


def build(pin: Pin, go: str, target: Path, say: Say) -> None:
    """Build the program of `pin` into the file `target`. Raises ComponentError with the compiler's last lines."""
    source = module_folder(pin, go, say)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        (work / "go.mod").write_text(go_mod(pin, (source / "go.mod").read_text()))
        flags = "-s -w"
        package = pin.package or pin.module
        if pin.command == "kube":
            (work / "main.go").write_text(resources.files(__package__).joinpath("kube.go.txt").read_text())
            major, minor, _ = pin.version.split(".")
            of = "k8s.io/component-base/version"
            flags += f" -X {of}.gitVersion=v{pin.version} -X {of}.gitMajor={major} -X {of}.gitMinor={minor}"
            package = "."
        made = work / "made"
        say(f"building with Go ({pin.build})")
        _run([go, "build", "-trimpath", "-ldflags", flags, "-o", str(made), package], work, say)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f"{target.name}.{os.getpid()}")
        shutil.copy(made, partial)  # into the target's file system, then in one step
        partial.replace(target)
    say(f"built in {time.monotonic() - began:.0f} s, {target.stat().st_size / 1e6:.0f} MB")


def _run(command: list[str], folder: Path, say: Say, *, quiet: bool = False) -> str:
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=mod", "GOWORK": "off"}
    began = said = time.monotonic()
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
        while True:
            try:
                output, _ = process.communicate(timeout=1)
                break
            except subprocess.TimeoutExpired:
                if not quiet and time.monotonic() - said >= 15:
                    said = time.monotonic()
                    say(f"still building, {said - began:.0f} s")
            except BaseException:
                process.kill()
                raise
        if process.returncode:
            errors.seek(0)
            end = "\n".join(errors.read().splitlines()[-5:])
            raise ComponentError(f"`{' '.join(command[:3])}` failed: {end}")
    return output
