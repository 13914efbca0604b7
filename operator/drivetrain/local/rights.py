"""The operator's rights in the embedded mode: the list that it has in a cluster, so that a missing one shows."""

from drivetrain.api import rights
from drivetrain.api.documents import Document

NAME = "drivetrain-operator"


def operator_rights() -> tuple[Document, ...]:
    """Return the ClusterRole and its binding to the operator's user."""
    api = "rbac.authorization.k8s.io"
    role: Document = {
        "apiVersion": f"{api}/v1",
        "kind": "ClusterRole",
        "metadata": {"name": NAME},
        "rules": [right.rule for right in (*rights.OPERATOR, *rights.LEASE)],
    }
    binding: Document = {
        "apiVersion": f"{api}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": NAME},
        "roleRef": {"apiGroup": api, "kind": "ClusterRole", "name": NAME},
        "subjects": [{"apiGroup": api, "kind": "User", "name": NAME}],
    }
    return role, binding
