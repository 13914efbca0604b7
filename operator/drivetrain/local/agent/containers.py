"""The head container of a pod as a local process: environment, rewritten paths. Pure; words as the kubelet's."""

import base64
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from drivetrain.api.documents import (
    JSON,
    Document,
    annotations_of,
    documents,
    labels_of,
    mapping,
    name_of,
    namespace_of,
    text,
    texts,
    uid_of,
    value,
)
from drivetrain.api.kinds import CONFIG_MAP, SECRET, Kind
from drivetrain.api.names import CLUSTER_LABEL
from drivetrain.local.agent.facts import NODE, World

_OURS = ("RAY_SERVE_", "RAY_AUTH_", "RAY_ADDRESS")
"""What the one Ray instance of this machine decides: its ports, sockets and token, whatever a template says."""

_REFERENCE = re.compile(r"\$\$|\$\(([A-Za-z_.-][\w.-]*)\)")


class ContainerError(Exception):
    """The container cannot be made yet; `str()` is what the kubelet says. It is tried again when something changes."""


class MountError(ContainerError):
    """A volume cannot be made; the kubelet shows these as events and leaves the container in ContainerCreating."""

    def __init__(self, volume: str, message: str) -> None:
        super().__init__(message)
        self.volume = volume


def head_container(pod: Document) -> Document:
    """Return the container that runs Ray: the first one, as in KubeRay."""
    return documents(pod, "spec", "containers")[0]


def data_of(world: World, kind: Kind, namespace: str, name: str) -> Mapping[str, bytes] | None:
    """Return the entries of a ConfigMap or Secret, or None when it does not exist."""
    found = world.get(kind, namespace, name)
    if found is None:
        return None
    if kind == SECRET:
        return {key: base64.b64decode(entry) for key, entry in texts(found, "data").items()}
    binary = {key: base64.b64decode(entry) for key, entry in texts(found, "binaryData").items()}
    return binary | {key: entry.encode() for key, entry in texts(found, "data").items()}


def environment(pod: Document, world: World) -> Mapping[str, str]:
    """Return the variables of the head container, as it was started. Raises ContainerError as `resolve` does."""
    started = world.environments.get(uid_of(pod))
    return resolve(pod, world) if started is None else started


def resolve(pod: Document, world: World) -> dict[str, str]:
    """Return the variables of a container that starts now. Raises ContainerError for a reference that does not hold."""
    namespace = namespace_of(pod)
    container = head_container(pod)
    variables: dict[str, str] = {}
    for source in documents(container, "envFrom"):
        variables |= _all_of(source, namespace, world)
    for entry in documents(container, "env"):
        name = text(entry, "name")
        origin = mapping(entry, "valueFrom")
        found = _value_from(origin, pod, world) if origin else _expanded(text(entry, "value"), variables)
        if found is not None:
            variables[name] = found
    volumes = mounts(pod, world.place.pods)
    variables = {name: relocated(found, volumes) for name, found in variables.items() if not name.startswith(_OURS)}
    variables["RAY_CLUSTER_NAME"] = labels_of(pod).get(CLUSTER_LABEL, "")
    variables["RAY_CLUSTER_NAMESPACE"] = namespace
    variables["KUBERNETES_SERVICE_HOST"] = "127.0.0.1"
    variables["KUBERNETES_SERVICE_PORT"] = str(world.place.api_port)
    return variables


def mounts(pod: Document, pods: Path) -> dict[str, Path]:
    """Return where each mount path of the head container lies here, the longest first."""
    found = {}
    for mount in documents(head_container(pod), "volumeMounts"):
        source = volume_folder(pod, pods, text(mount, "name"))
        below = text(mount, "subPath").strip("/")
        found[text(mount, "mountPath").rstrip("/")] = source / below if below else source
    return dict(sorted(found.items(), key=lambda pair: -len(pair[0])))


def volume_folder(pod: Document, pods: Path, volume: str) -> Path:
    """Return the folder of a pod's volume."""
    return pods / uid_of(pod) / volume


def relocated(found: str, volumes: Mapping[str, Path]) -> str:
    """Return `found`, with a mount path that it begins with replaced by the folder here."""
    for path, folder in volumes.items():
        if found == path or found.startswith(path + "/"):
            return str(folder) + found[len(path) :]
    return found


def relocated_command(command: str, volumes: Mapping[str, Path]) -> str:
    """Return a shell command in which words, and values after `=`, that begin with a mount path are moved."""

    def move(match: re.Match[str]) -> str:
        return relocated(match.group(), volumes)

    return re.sub(r"(?<![^\s=\"'])/[^\s\"';|&]*", move, command)


def relocated_tree(found: JSON, volumes: Mapping[str, Path]) -> JSON:
    """Return a document in which every text that begins with a mount path is moved."""
    if isinstance(found, str):
        return relocated(found, volumes)
    if isinstance(found, Mapping):
        return {key: relocated_tree(entry, volumes) for key, entry in found.items()}
    if isinstance(found, list | tuple):
        return [relocated_tree(entry, volumes) for entry in found]
    return found


def field_of(pod: Document, path: str) -> str:
    """Return what the downward API gives for a field path. Raises ContainerError for one that it does not know."""
    keyed = re.fullmatch(r"metadata\.(labels|annotations)\['([^']+)'\]", path)
    if keyed:
        entries = labels_of(pod) if keyed.group(1) == "labels" else annotations_of(pod)
        return entries.get(keyed.group(2), "")
    fixed: Mapping[str, Callable[[], str]] = {
        "metadata.name": lambda: name_of(pod),
        "metadata.namespace": lambda: namespace_of(pod),
        "metadata.uid": lambda: uid_of(pod),
        "spec.nodeName": lambda: NODE,
        "spec.serviceAccountName": lambda: text(pod, "spec", "serviceAccountName") or "default",
        "status.podIP": lambda: "127.0.0.1",
        "status.hostIP": lambda: "127.0.0.1",
    }
    if path not in fixed:
        raise ContainerError(f'unsupported fieldPath "{path}"')
    return fixed[path]()


def keyed_value(world: World, kind: Kind, namespace: str, reference: Document) -> bytes | None:
    """Return the value that a key reference names; None for an optional one that is missing. Raises ContainerError."""
    name, key = text(reference, "name"), text(reference, "key")
    optional = value(reference, "optional") is True
    data = data_of(world, kind, namespace, name)
    if data is None:
        if optional:
            return None
        raise ContainerError(f'{kind.kind.lower()} "{name}" not found')
    if key not in data:
        if optional:
            return None
        raise ContainerError(f"couldn't find key {key} in {kind.kind} {namespace}/{name}")
    return data[key]


def _value_from(origin: Document, pod: Document, world: World) -> str | None:
    namespace = namespace_of(pod)
    for name, kind in (("secretKeyRef", SECRET), ("configMapKeyRef", CONFIG_MAP)):
        if name in origin:
            found = keyed_value(world, kind, namespace, mapping(origin, name))
            return None if found is None else found.decode(errors="replace")
    if "fieldRef" in origin:
        return field_of(pod, text(origin, "fieldRef", "fieldPath"))
    raise ContainerError(f"unsupported valueFrom {', '.join(sorted(origin))} (embedded mode)")


def _all_of(source: Document, namespace: str, world: World) -> dict[str, str]:
    prefix = text(source, "prefix")
    for name, kind in (("configMapRef", CONFIG_MAP), ("secretRef", SECRET)):
        if name in source:
            wanted = text(source, name, "name")
            data = data_of(world, kind, namespace, wanted)
            if data is None:
                if value(source, name, "optional") is True:
                    return {}
                raise ContainerError(f'{kind.kind.lower()} "{wanted}" not found')
            return {prefix + key: entry.decode(errors="replace") for key, entry in data.items()}
    return {}


def _expanded(found: str, variables: Mapping[str, str]) -> str:
    """Replace $(NAME) by earlier variables; $$ is a dollar sign, and an unknown name stays as it is."""

    def replace(match: re.Match[str]) -> str:
        return "$" if match.group() == "$$" else variables.get(match.group(1), match.group())

    return _REFERENCE.sub(replace, found)
