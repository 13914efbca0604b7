"""JSON values as readable YAML: a writer only, because the api has no YAML library and needs none to read."""

import json
import re
import textwrap
from collections.abc import Iterator

from drivetrain.api.documents import JSON, Document

_PLAIN = re.compile(r"^[A-Za-z_./][A-Za-z0-9_./ ()'%=,-]*$")
_NOT_TEXT = re.compile(r"^(~|null|true|false|yes|no|on|off|y|n|[.]inf|[.]nan|[-+.0-9].*)$", re.IGNORECASE)
_BLOCK = re.compile(r"^[^\s]+(?:[ \n][^\s]+)*$")
_WIDTH = 110


def to_yaml(document: Document) -> str:
    """One YAML document with its keys in the given order; the same input gives the same bytes."""
    return "".join(f"{line}\n" for line in _mapping(document, ""))


def _mapping(values: Document, indent: str) -> Iterator[str]:
    for key, value in values.items():
        yield from _entry(f"{indent}{_scalar(key)}:", value, indent)


def _entry(start: str, value: JSON, indent: str) -> Iterator[str]:
    if isinstance(value, dict) and value:
        yield start
        yield from _mapping(value, f"{indent}  ")
    elif isinstance(value, list | tuple) and value:
        flow = f"{start} [{', '.join(_scalar(item) for item in value)}]" if all(map(_is_short, value)) else ""
        if flow and len(flow) <= _WIDTH:
            yield flow
        else:
            yield start
            yield from _sequence(value, indent)
    elif isinstance(value, str) and _BLOCK.match(value) and len(start) + len(value) > _WIDTH:
        yield f"{start} >-"
        yield from _folded(value, f"{indent}  ")
    else:
        yield f"{start} {_scalar(value)}"


def _sequence(values: list[JSON] | tuple[JSON, ...], indent: str) -> Iterator[str]:
    for value in values:
        if isinstance(value, dict) and value:
            first, *rest = _mapping(value, f"{indent}  ")
            yield f"{indent}- {first.lstrip()}"
            yield from rest
        else:
            yield from _entry(f"{indent}-", value, f"{indent}")


def _folded(text: str, indent: str) -> Iterator[str]:
    """Lines that YAML joins by one space each; an empty line stands for a line break."""
    for number, paragraph in enumerate(text.split("\n")):
        if number:
            yield ""
        yield from textwrap.wrap(
            paragraph,
            _WIDTH,
            initial_indent=indent,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        )


def _is_short(value: JSON) -> bool:
    return not isinstance(value, dict | list | tuple)


def _scalar(value: JSON) -> str:
    if isinstance(value, str) and _PLAIN.match(value) and not _NOT_TEXT.match(value) and value == value.strip():
        return value
    return json.dumps(value, ensure_ascii=False)
