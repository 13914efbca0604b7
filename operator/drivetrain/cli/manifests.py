"""Manifest files: their documents, and the line on which each field stands."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml
from yaml.constructor import SafeConstructor

from drivetrain.api.errors import DrivetrainError


class ManifestError(DrivetrainError):
    """A manifest file cannot be read as YAML."""


@dataclass(frozen=True, slots=True, eq=False)
class Manifest:
    """One document of a file."""

    path: Path
    content: Mapping[str, object]
    node: yaml.Node

    @property
    def kind(self) -> str:
        """Its kind, empty when it has none."""
        return str(self.content.get("kind", ""))

    @property
    def group(self) -> str:
        """The group of its apiVersion."""
        return str(self.content.get("apiVersion", "")).partition("/")[0]

    def line(self, field: str) -> int:
        """The line, from 1, of a field such as spec.levers[1].step, or of the nearest field above it that exists."""
        node, line = self.node, self.node.start_mark.line + 1
        for part in re.findall(r"[^.\[\]]+", field):
            key, below = _below(node, part)
            if below is None:
                return line
            node, line = below, (key or below).start_mark.line + 1
        return line


def read(path: Path) -> Iterator[Manifest]:
    """The documents of a file, in order. Raises ManifestError with line and column for what is not YAML."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ManifestError(f"{path}: {error.strerror}.", remedy="Name a file that can be read.") from error
    try:
        for node in yaml.compose_all(text, Loader=yaml.SafeLoader):
            content = SafeConstructor().construct_document(node)
            if content is None:
                continue
            if not isinstance(content, dict):
                raise ManifestError(
                    f"{path}:{node.start_mark.line + 1}: a document must be a mapping with apiVersion and kind."
                )
            yield Manifest(path, content, node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise ManifestError(f"{place}: {error.problem}.", remedy="Correct the YAML.") from error


def _below(node: yaml.Node, part: str) -> tuple[yaml.Node | None, yaml.Node | None]:
    if isinstance(node, yaml.MappingNode):
        return next(((key, value) for key, value in node.value if key.value == part), (None, None))
    if isinstance(node, yaml.SequenceNode) and part.isdigit() and int(part) < len(node.value):
        return None, node.value[int(part)]
    return None, None
