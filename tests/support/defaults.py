"""The defaults of our definitions, filled in as the API server fills them when it stores an object."""

from collections.abc import Mapping, Sequence
from functools import cache

from drivetrain.api.crds import crds
from drivetrain.api.documents import JSON, Document, documents, mapping, text


def defaulted(document: Document) -> Document:
    """The object with every default that its definition states."""
    filled = _filled(document, _schemas()[text(document, "kind")])
    assert isinstance(filled, Mapping)
    return filled


@cache
def _schemas() -> Mapping[str, Document]:
    """The schema of each of our kinds."""
    return {
        text(each, "spec", "names", "kind"): mapping(
            documents(each, "spec", "versions")[0], "schema", "openAPIV3Schema"
        )
        for each in crds().values()
    }


def _filled(found: JSON, schema: Document) -> JSON:
    if isinstance(found, Mapping):
        fields = mapping(schema, "properties")
        missing = {
            key: each["default"] for key in fields if key not in found and "default" in (each := mapping(fields, key))
        }
        rest = mapping(schema, "additionalProperties")
        return {key: _filled(part, mapping(fields, key) or rest) for key, part in {**found, **missing}.items()}
    if isinstance(found, Sequence) and not isinstance(found, str):
        return [_filled(part, mapping(schema, "items")) for part in found]
    return found
