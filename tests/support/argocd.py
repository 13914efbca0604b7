"""Argo CD's Lua as it runs custom scripts: Lua 5.1 with nothing but the base and table libraries."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lupa.lua51 import LuaRuntime, lua_type

from drivetrain.api.documents import JSON, Document, text
from drivetrain.api.kinds import kind_of
from tests.support.helm import CHART

CUSTOMIZATIONS = CHART / "files" / "argocd" / "resource_customizations"
STATUSES = ("Healthy", "Progressing", "Degraded", "Suspended")
_HIDDEN = (
    "string math io os debug package require module loadfile dofile load loadstring newproxy collectgarbage python"
)


def health(document: Document) -> tuple[str, str]:
    """Return status and message that health.lua gives the resource."""
    told = run(_script(document, "health.lua"), document)
    return str(told["status"]), str(told["message"])


def actions(document: Document) -> dict[str, bool]:
    """Return the actions that are offered, and whether each can be taken now."""
    found = run(_script(document, "actions/discovery.lua"), document)
    return {name: not each["disabled"] for name, each in found.items()}


def act(document: Document, action: str) -> Document:
    """Return the resource as the action leaves it; the original tells empty lists from empty maps, as in Argo CD."""
    changed: Document = _restored(run(_script(document, f"actions/{action}/action.lua"), document), document)
    return changed


def folder(document: Document) -> Path:
    """Where the scripts of a kind lie."""
    return CUSTOMIZATIONS / kind_of(document).group / text(document, "kind")


def run(script: str, document: Document) -> dict[str, Any]:
    """Run a script with the resource as `obj` and return what it returns."""
    lua = LuaRuntime(register_eval=False, register_builtins=False, unpack_returned_tuples=True)
    lua.execute('getmetatable("").__index = nil')
    for name in _HIDDEN.split():
        lua.globals()[name] = None
    lua.globals()["obj"] = _table(lua, document)
    returned: dict[str, Any] = _plain(lua.execute(script))
    return returned


def _script(document: Document, name: str) -> str:
    return (folder(document) / name).read_text("utf-8")


def _restored(part: Any, original: Any) -> Any:
    if isinstance(part, dict):
        if not part and isinstance(original, list):
            return []
        known = original if isinstance(original, dict) else {}
        return {key: _restored(each, known.get(key)) for key, each in part.items()}
    if isinstance(part, list) and isinstance(original, list):
        return [_restored(each, known) for each, known in zip(part, original, strict=True)]
    return part


def _table(lua: LuaRuntime, part: JSON) -> Any:
    if isinstance(part, Mapping):
        return lua.table_from({key: _table(lua, each) for key, each in part.items() if each is not None})
    if isinstance(part, list | tuple):
        return lua.table_from([_table(lua, each) for each in part])
    return part


def _plain(part: Any) -> Any:
    if lua_type(part) != "table":
        return part
    keys = list(part.keys())
    if keys and keys == list(range(1, len(keys) + 1)):
        return [_plain(part[key]) for key in keys]
    return {key: _plain(part[key]) for key in keys}
