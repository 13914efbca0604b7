"""The operator's rights in the embedded mode: the list that it has in a cluster, so that a missing one shows."""

from drivetrain.api.documents import Document

NAME = "drivetrain-operator"

_READ = ["get", "list", "watch"]
_OWN = [*_READ, "create", "patch", "delete"]

_RULES: tuple[tuple[str, tuple[str, ...], list[str]], ...] = (
    ("drivetrain.dev", ("drivetrainprojects", "trainingruns", "drivetraindeployments"), [*_OWN, "update"]),
    (
        "drivetrain.dev",
        ("drivetrainprojects/status", "trainingruns/status", "drivetraindeployments/status"),
        ["get", "patch", "update"],
    ),
    ("ray.io", ("rayjobs", "rayservices"), _OWN),
    ("ray.io", ("rayclusters",), _READ),
    ("kueue.x-k8s.io", ("workloads",), _READ),
    ("kueue.x-k8s.io", ("localqueues", "localqueues/pendingworkloads"), ["get", "list"]),
    ("", ("pods", "namespaces"), _READ),
    ("", ("configmaps", "serviceaccounts", "services"), _OWN),
    ("rbac.authorization.k8s.io", ("roles", "rolebindings"), _OWN),
    ("networking.k8s.io", ("networkpolicies",), _OWN),
    ("coordination.k8s.io", ("leases",), ["get", "create", "patch", "update"]),
    ("", ("events",), ["create", "patch"]),
    ("events.k8s.io", ("events",), ["create", "patch"]),
    ("apiextensions.k8s.io", ("customresourcedefinitions",), _READ),
)


def operator_rights() -> tuple[Document, ...]:
    """Return the ClusterRole and its binding to the operator's user."""
    rules = [{"apiGroups": [group], "resources": list(resources), "verbs": verbs} for group, resources, verbs in _RULES]
    api = "rbac.authorization.k8s.io"
    role: Document = {
        "apiVersion": f"{api}/v1",
        "kind": "ClusterRole",
        "metadata": {"name": NAME},
        "rules": rules,
    }
    binding: Document = {
        "apiVersion": f"{api}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": NAME},
        "roleRef": {"apiGroup": api, "kind": "ClusterRole", "name": NAME},
        "subjects": [{"apiGroup": api, "kind": "User", "name": NAME}],
    }
    return role, binding
