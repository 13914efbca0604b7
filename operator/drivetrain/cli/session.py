"""A person's session with a cluster: what the kubeconfig allows, no more. Synchronous, for commands and scripts."""

import json
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote, urlencode

import urllib3
from kubernetes import client, config
from kubernetes.config.config_exception import ConfigException

from drivetrain.api.documents import Document, documents
from drivetrain.api.errors import (
    ClusterError,
    ConflictError,
    DrivetrainError,
    ForbiddenError,
    NotFoundError,
    RejectedError,
    UnavailableError,
)
from drivetrain.api.kinds import Kind, Ref, ref_of

FIELD_MANAGER = "drivetrain-cli"
_TIMEOUT = 30.0
_ERRORS: Mapping[int, type[ClusterError]] = {
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    410: ConflictError,
    422: RejectedError,
    429: UnavailableError,
}


class Session:
    """Talks to one API server with one person's rights. Raises the ClusterErrors of drivetrain.api.errors."""

    def __init__(self, api: client.ApiClient, namespace: str) -> None:
        self._api = api
        self.namespace = namespace
        """Where unqualified names live."""

    @classmethod
    def open(
        cls, *, kubeconfig: Path | None = None, context: str | None = None, namespace: str | None = None
    ) -> "Session":
        """A session from a kubeconfig (KUBECONFIG or ~/.kube/config when none is named) and its current context."""
        file = str(kubeconfig) if kubeconfig else None
        try:
            api = config.new_client_from_config(config_file=file, context=context)
            contexts, active = config.list_kube_config_contexts(config_file=file)
        except ConfigException as error:
            raise DrivetrainError(
                f"No cluster to talk to: {error}.",
                remedy="Run `drivetrain up`, or name a kubeconfig with --kubeconfig or KUBECONFIG.",
            ) from error
        chosen = next((entry for entry in contexts if entry["name"] == context), active)
        return cls(api, namespace or chosen["context"].get("namespace") or "default")

    def get(self, ref: Ref) -> Document | None:
        """The object, or None."""
        try:
            return self._call("GET", ref)
        except NotFoundError:
            return None

    def list(self, kind: Kind, labels: Mapping[str, str] | None = None) -> tuple[Document, ...]:
        """All objects of a kind in the session's namespace."""
        query = {"labelSelector": ",".join(f"{key}={value}" for key, value in labels.items())} if labels else {}
        return documents(self._call("GET", Ref(kind, self.namespace, ""), query=query), "items")

    def apply(self, document: Document) -> Document:
        """Server-side apply, as `kubectl apply --server-side --force-conflicts` does."""
        return self._call(
            "PATCH",
            ref_of(document),
            body=document,
            query={"fieldManager": FIELD_MANAGER, "force": "true"},
            content_type="application/apply-patch+yaml",
        )

    def annotate(self, ref: Ref, annotation: str, value: str | None) -> Document:
        """Sets an annotation, or removes it."""
        return self._call(
            "PATCH",
            ref,
            body={"metadata": {"annotations": {annotation: value}}},
            query={"fieldManager": FIELD_MANAGER},
            content_type="application/merge-patch+json",
        )

    def delete(self, ref: Ref) -> None:
        """Deletes with background propagation; an object that is gone already is success."""
        try:
            self._call("DELETE", ref, query={"propagationPolicy": "Background"})
        except NotFoundError:
            return

    def _call(
        self,
        method: str,
        ref: Ref,
        *,
        body: Document | None = None,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> Document:
        path = ref.kind.path
        if ref.kind.namespaced:
            path += f"/namespaces/{quote(ref.namespace or self.namespace)}"
        path += f"/{ref.kind.plural}" + (f"/{quote(ref.name)}" if ref.name else "")
        if query:
            path += f"?{urlencode(query)}"
        prepared = self._api.param_serialize(
            method,
            path,
            header_params={"Content-Type": content_type, "Accept": "application/json"},
            body=body,
            auth_settings=["BearerToken"],
        )
        try:
            response = self._api.call_api(*prepared, _request_timeout=_TIMEOUT)
        except urllib3.exceptions.HTTPError as error:
            raise UnavailableError(
                f"the API server does not answer ({type(error).__name__})",
                kind=ref.kind.kind,
                namespace=ref.namespace,
                name=ref.name,
                status=0,
                remedy="Check that the cluster runs and that the kubeconfig is current.",
            ) from error
        text = response.read()
        answer = json.loads(text) if text else {}
        if response.status >= 400:
            raise _ERRORS.get(response.status, UnavailableError if response.status >= 500 else ClusterError)(
                str(answer.get("message", response.reason)),
                kind=ref.kind.kind,
                namespace=ref.namespace,
                name=ref.name,
                status=response.status,
            )
        document: Document = answer
        return document
