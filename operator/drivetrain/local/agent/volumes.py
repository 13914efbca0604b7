"""The volumes of a pod as files: what they hold (pure), and putting it in place as the kubelet does."""

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from drivetrain.api.documents import Document, documents, integer, mapping, namespace_of, text, value
from drivetrain.api.kinds import CONFIG_MAP, SECRET, Kind
from drivetrain.local.agent.containers import ContainerError, MountError, data_of, field_of
from drivetrain.local.agent.facts import World

_SCRATCH = frozenset({"emptyDir", "ephemeral"})


@dataclass(frozen=True, slots=True)
class Token:
    """A ServiceAccount token to request: where it goes below the volume, and for whom it is meant."""

    path: str
    audience: str
    seconds: int


@dataclass(frozen=True, slots=True)
class Volume:
    """What a volume holds: files by relative path, and tokens still to be requested. A scratch volume holds nothing."""

    name: str
    files: Mapping[str, bytes] = field(default_factory=dict)
    tokens: tuple[Token, ...] = ()
    scratch: bool = False


def volumes(pod: Document, world: World) -> tuple[Volume, ...]:
    """Return the pod's volumes. Raises MountError, in the kubelet's words, for one that cannot be made."""
    return tuple(_volume(entry, pod, world) for entry in documents(pod, "spec", "volumes"))


def put(folder: Path, files: Mapping[str, bytes]) -> bool:
    """Make `folder` hold exactly `files` plus what is not ours to judge (tokens); return whether anything changed.

    A file is replaced in one step, so that a reader sees the old content or the new one.
    """
    changed = False
    for name, content in files.items():
        path = folder / name
        if not path.is_file() or path.read_bytes() != content:
            write(path, content)
            changed = True
    return changed


def drop(folder: Path, keep: Iterable[str]) -> None:
    """Remove files below `folder` that are not in `keep`."""
    wanted = {folder / name for name in keep}
    for path in folder.rglob("*"):
        if path.is_file() and path not in wanted:
            path.unlink()


def write(path: Path, content: bytes) -> None:
    """Write a file that only the owner can read, in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    temporary.touch(mode=0o600)
    temporary.write_bytes(content)
    temporary.replace(path)


def discard(folder: Path) -> None:
    """Remove everything of a pod that is gone."""
    shutil.rmtree(folder, ignore_errors=True)


def _volume(entry: Document, pod: Document, world: World) -> Volume:
    name = text(entry, "name")
    namespace = namespace_of(pod)
    try:
        if "configMap" in entry:
            source = mapping(entry, "configMap")
            return Volume(name, _keys(source, text(source, "name"), CONFIG_MAP, namespace, world))
        if "secret" in entry:
            source = mapping(entry, "secret")
            return Volume(name, _keys(source, text(source, "secretName"), SECRET, namespace, world))
        if "downwardAPI" in entry:
            return Volume(name, _fields(mapping(entry, "downwardAPI"), pod))
        if "projected" in entry:
            return _projected(name, mapping(entry, "projected"), pod, world)
    except ContainerError as fault:
        raise MountError(name, f'MountVolume.SetUp failed for volume "{name}" : {fault}') from fault
    if _SCRATCH & entry.keys():
        return Volume(name, scratch=True)
    kinds = ", ".join(sorted(entry.keys() - {"name"})) or "nothing"
    raise MountError(name, f'MountVolume.SetUp failed for volume "{name}" : the embedded mode has no {kinds} volumes')


def _projected(name: str, projected: Document, pod: Document, world: World) -> Volume:
    files: dict[str, bytes] = {}
    tokens: list[Token] = []
    for source in documents(projected, "sources"):
        for key, kind in (("configMap", CONFIG_MAP), ("secret", SECRET)):
            if key in source:
                inner = mapping(source, key)
                files |= _keys(inner, text(inner, "name"), kind, namespace_of(pod), world)
        if "downwardAPI" in source:
            files |= _fields(mapping(source, "downwardAPI"), pod)
        if "serviceAccountToken" in source:
            wanted = mapping(source, "serviceAccountToken")
            seconds = integer(wanted, "expirationSeconds") or 3600
            tokens.append(Token(text(wanted, "path"), text(wanted, "audience"), seconds))
    return Volume(name, files, tuple(tokens))


def _keys(source: Document, name: str, kind: Kind, namespace: str, world: World) -> dict[str, bytes]:
    optional = value(source, "optional") is True
    data = data_of(world, kind, namespace, name)
    if data is None:
        if optional:
            return {}
        raise ContainerError(f'{kind.kind.lower()} "{name}" not found')
    items = documents(source, "items")
    if not items:
        return dict(data)
    found = {}
    for item in items:
        key = text(item, "key")
        if key in data:
            found[text(item, "path")] = data[key]
        elif not optional:
            raise ContainerError(f"references non-existent {'config' if kind == CONFIG_MAP else 'secret'} key: {key}")
    return found


def _fields(source: Document, pod: Document) -> dict[str, bytes]:
    return {
        text(item, "path"): field_of(pod, text(item, "fieldRef", "fieldPath")).encode()
        for item in documents(source, "items")
    }
