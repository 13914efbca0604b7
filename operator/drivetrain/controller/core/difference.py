"""Whether a write would change anything: the local half of server-side apply.

Every write costs the API server milliseconds, also one that changes nothing, so what is stored already is not sent.
"""

import json
from collections.abc import Mapping, Sequence

from drivetrain.api.documents import JSON, Document, documents, mapping, text

_STORED_ELSEWHERE = ("apiVersion", "kind")


def needs_write(live: Document, intent: Document, *, manager: str, subresource: str = "") -> bool:
    """Return whether applying `intent` as `manager` would change `live`: a field differs or is missing, or one that
    the manager owns is no longer stated. Fields of others are not looked at."""
    stated = {key: part for key, part in intent.items() if key not in _STORED_ELSEWHERE}
    return not contains(live, stated) or any(
        states_less(mapping(entry, "fieldsV1"), intent)
        for entry in documents(live, "metadata", "managedFields")
        if (text(entry, "manager"), text(entry, "operation"), text(entry, "subresource"))
        == (manager, "Apply", subresource)
    )


def contains(live: JSON, intent: JSON) -> bool:
    """Return whether every part of `intent` is in `live`: maps may have more, lists are of equal length.

    Empty maps, lists and None equal absence, because the API server drops them from many kinds.
    """
    if isinstance(intent, Mapping):
        if not intent:
            return live is None or isinstance(live, Mapping)
        return isinstance(live, Mapping) and all(contains(live.get(key), part) for key, part in intent.items())
    if isinstance(intent, Sequence) and not isinstance(intent, str):
        found = live if isinstance(live, Sequence) and not isinstance(live, str) else ()
        return len(found) == len(intent) and all(map(contains, found, intent))
    return live == intent and isinstance(live, bool) == isinstance(intent, bool)


def states_less(owned: Document, intent: JSON) -> bool:
    """Return whether `owned` (FieldsV1 notation) names a field that `intent` no longer states."""
    for key, inner in owned.items():
        sort, _, name = key.partition(":")
        deeper = inner if isinstance(inner, Mapping) else {}
        if sort == "f":
            if not isinstance(intent, Mapping) or intent.get(name) is None or states_less(deeper, intent[name]):
                return True
        elif sort == "k":
            element = _element(intent, json.loads(name))
            if element is None or states_less(deeper, element):
                return True
        elif sort == "v" and json.loads(name) not in _elements(intent):
            return True
    return False


def _element(intent: JSON, identity: Document) -> Document | None:
    """Return the list element with these key fields; a key that it leaves out was a default of the server."""
    for element in _elements(intent):
        if isinstance(element, Mapping) and all(element.get(key, part) == part for key, part in identity.items()):
            return element
    return None


def _elements(intent: JSON) -> Sequence[JSON]:
    return intent if isinstance(intent, Sequence) and not isinstance(intent, str) else ()
