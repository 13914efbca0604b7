"""The pin file: which binaries embedded mode and tests need, where each may come from. Standard library only."""

import platform
import re
import tomllib
from dataclasses import dataclass
from importlib import resources

CRDS = "kuberay-crds"


@dataclass(frozen=True, slots=True)
class Pin:
    """One pinned program, or pinned files of a module (`files`, with the sha256 of each)."""

    name: str
    version: str
    release: str
    module: str
    sum: str
    minimum: str = ""
    checksums: str = ""
    package: str = ""
    command: str = ""
    build: str = ""
    folder: str = ""
    systems: tuple[str, ...] = ("linux", "darwin")
    files: tuple[tuple[str, str], ...] = ()
    development: bool = False
    """Needed by tests only: `drivetrain up` does without."""

    @property
    def build_target(self) -> str:
        """The program that a build makes: several pins may share one."""
        return self.command or self.name

    def accepts(self, version: str) -> bool:
        """Whether a program that reports `version` will do; one that reports none ("") is taken at its name."""
        return not version or _numbers(version) >= _numbers(self.minimum)


@dataclass(frozen=True, slots=True)
class Machine:
    """The operating system and processor as release files name them: linux or darwin, amd64 or arm64."""

    system: str
    architecture: str

    def fill(self, template: str, version: str) -> str:
        """Return the address that `template` has for this machine."""
        names = {"amd64": "x86_64"}
        return template.format(
            version=version,
            os=self.system,
            Os=self.system.title(),
            arch=self.architecture,
            machine=names.get(self.architecture, self.architecture),
        )


def this_machine() -> Machine:
    """Return the machine that this process runs on."""
    processors = {"x86_64": "amd64", "aarch64": "arm64"}
    processor = platform.machine().lower()
    return Machine(platform.system().lower(), processors.get(processor, processor))


def load() -> dict[str, Pin]:
    """Read the pin file that is shipped beside this module, by name."""
    text = resources.files(__package__).joinpath("binaries.toml").read_text()
    pins = {}
    for name, entry in tomllib.loads(text).items():
        files = tuple(sorted(entry.pop("files", {}).items()))
        systems = tuple(entry.pop("systems", ("linux", "darwin")))
        pins[name] = Pin(name=name, files=files, systems=systems, **entry)
    return pins


def reported_version(output: str) -> str:
    """Find the version in what `--version` printed, or return ""."""
    found = re.search(r"\bv?(\d+\.\d+\.\d+)\b", output)
    return found.group(1) if found else ""


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
