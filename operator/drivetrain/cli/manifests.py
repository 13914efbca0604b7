"""Manifest files: their documents, those of Lists too, and the line on which each field stands."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml
from yaml.constructor import ConstructorError, SafeConstructor
from yaml.reader import ReaderError

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


class _Constructor(SafeConstructor):
    """Tells where a value stands that is written well and means nothing, such as the 30th of February."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> object:
        """As YAML constructs it. Raises ConstructorError."""
        try:
            return super().construct_object(node, deep)
        except ValueError as error:
            raise ConstructorError(problem=str(error), problem_mark=node.start_mark) from error


def read(path: Path) -> Iterator[Manifest]:
    """The documents of a file, in order, a List's items one by one.

    Raises ManifestError with line and column for what is not YAML.
    """
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        raise ManifestError(f"{path}: {error.strerror}.", remedy="Name a file that can be read.") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ManifestError(f"{path}:{line}: this is not UTF-8.", remedy="Save the file as UTF-8.") from error
    try:
        for node in yaml.compose_all(text, Loader=yaml.SafeLoader):
            content = _Constructor().construct_document(node)
            if content is not None:
                yield from _unfolded(path, content, node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise ManifestError(f"{place}: {error.problem}.", remedy="Correct the YAML.") from error
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        told = f"{path}:{line}: the character U+{error.character:04X} is not allowed."
        raise ManifestError(told, remedy="Remove it, or save the file as UTF-8.") from error


def _unfolded(path: Path, content: object, node: yaml.Node) -> Iterator[Manifest]:
    if not isinstance(content, dict):
        place = f"{path}:{node.start_mark.line + 1}"
        raise ManifestError(f"{place}: a document must be a mapping with apiVersion and kind.")
    _, items = _below(node, "items")
    if (content.get("apiVersion"), content.get("kind")) != ("v1", "List") or not isinstance(items, yaml.SequenceNode):
        yield Manifest(path, content, node)
        return
    for item in items.value:
        yield from _unfolded(path, _Constructor().construct_document(item), item)


def _below(node: yaml.Node, part: str) -> tuple[yaml.Node | None, yaml.Node | None]:
    if isinstance(node, yaml.MappingNode):
        return next(((key, value) for key, value in node.value if key.value == part), (None, None))
    if isinstance(node, yaml.SequenceNode) and part.isdigit() and int(part) < len(node.value):
        return None, node.value[int(part)]
    return None, None
