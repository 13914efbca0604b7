"""A person's session with a cluster: what the kubeconfig allows, no more. Synchronous, for commands and scripts."""

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import quote, urlencode

import urllib3
import yaml
from kubernetes import client, config
from kubernetes.config.config_exception import ConfigException

from drivetrain.api.documents import Document, documents, text, value
from drivetrain.api.errors import (
    ClusterError,
    ConflictError,
    DrivetrainError,
    ForbiddenError,
    NotFoundError,
    RejectedError,
    UnavailableError,
)
from drivetrain.api.kinds import EVENT, POD, Kind, Ref, ref_of

FIELD_MANAGER = "drivetrain-cli"
TIMEOUT = 30.0
"""Seconds for one request."""
_ERRORS: Mapping[int, type[ClusterError]] = {
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    410: ConflictError,
    422: RejectedError,
    429: UnavailableError,
}
_REMEDIES: Mapping[int, str] = {
    401: "The kubeconfig's credentials are not accepted: log in again, or name another context.",
    403: "Ask whoever runs the cluster for this right; `drivetrain doctor` lists those that are missing.",
}
_ACCESS_REVIEW = Kind("authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", False)
PAGE = 500


class Session:
    """Talks to one API server with one person's rights. Raises the ClusterErrors of drivetrain.api.errors."""

    def __init__(self, api: client.ApiClient, namespace: str, timeout: float = TIMEOUT) -> None:
        self._api = api
        self._timeout = timeout
        self.namespace = namespace
        """Where unqualified names live."""

    @classmethod
    def open(
        cls,
        *,
        kubeconfig: Path | None = None,
        context: str | None = None,
        namespace: str | None = None,
        timeout: float = TIMEOUT,
    ) -> "Session":
        """A session from a kubeconfig (KUBECONFIG or ~/.kube/config when none is named) and its current context."""
        file = str(kubeconfig) if kubeconfig else None
        try:
            api = config.new_client_from_config(config_file=file, context=context)
            contexts, active = config.list_kube_config_contexts(config_file=file)
        except ConfigException as error:
            raise DrivetrainError(
                f"No cluster to talk to: {str(error).rstrip('.')}.",
                remedy="Run `drivetrain up`, or name a kubeconfig with --kubeconfig or KUBECONFIG.",
            ) from error
        except (OSError, yaml.YAMLError, ValueError, TypeError, AttributeError, KeyError) as error:
            # The client reads the file without looking at what it holds.
            raise DrivetrainError(
                f"The kubeconfig{f' {file}' if file else ''} cannot be read: {' '.join(str(error).split())}.",
                remedy="Name another one with --kubeconfig or KUBECONFIG, or correct it.",
            ) from error
        chosen = next((entry for entry in contexts if entry["name"] == context), active)
        return cls(api, namespace or chosen["context"].get("namespace") or "default", timeout)

    @property
    def host(self) -> str:
        """Address of the API server."""
        return str(self._api.configuration.host)

    def get(self, ref: Ref) -> Document | None:
        """The object, or None."""
        try:
            return self._call("GET", ref)
        except NotFoundError:
            return None

    def list(
        self, kind: Kind, labels: Mapping[str, str] | None = None, *, namespace: str | None = None
    ) -> tuple[Document, ...]:
        """All objects of a kind in a namespace: the session's when None, all of them when empty.

        Raises NotFoundError where the API server does not serve the kind.
        """
        query = {"limit": str(PAGE)}
        if labels:
            query["labelSelector"] = ",".join(f"{key}={label}" for key, label in labels.items())
        found: list[Document] = []
        ref = Ref(kind, self.namespace if namespace is None else namespace, "")
        while True:
            page = self._call("GET", ref, query=query)
            # Items of a list carry neither, and whoever reads one alone needs both.
            own = {"apiVersion": kind.api_version, "kind": kind.kind}
            found += ({**own, **each} for each in documents(page, "items"))
            if not (rest := text(page, "metadata", "continue")):
                return tuple(found)
            query["continue"] = rest

    def events(self, namespace: str, uid: str) -> tuple[Document, ...]:
        """The events about one object, as events.k8s.io tells them."""
        ref = Ref(EVENT, namespace, "")
        return documents(self._call("GET", ref, query={"fieldSelector": f"regarding.uid={uid}"}), "items")

    def serves(self, kind: Kind) -> bool:
        """Whether the API server knows the kind."""
        try:
            found = self.read(kind.path)
        except NotFoundError:
            return False
        return any(text(each, "name") == kind.plural for each in documents(found, "resources"))

    def read(self, path: str) -> Document:
        """What lies at a path of the API server: discovery, /version, a subresource."""
        return self._send("GET", path, Ref(Kind("", "", "", path, False), "", ""))

    def may(self, verb: str, kind: Kind, *, namespace: str | None = None, subresource: str = "") -> bool:
        """Whether this person may do that (SelfSubjectAccessReview)."""
        attributes: dict[str, str] = {
            "verb": verb,
            "group": kind.group,
            "version": kind.version,
            "resource": kind.plural,
            "subresource": subresource,
        }
        if kind.namespaced:
            attributes["namespace"] = self.namespace if namespace is None else namespace
        review: Document = {
            "apiVersion": _ACCESS_REVIEW.api_version,
            "kind": _ACCESS_REVIEW.kind,
            "spec": {"resourceAttributes": attributes},
        }
        return value(self._call("POST", Ref(_ACCESS_REVIEW, "", ""), body=review), "status", "allowed") is True

    def clock(self) -> datetime | None:
        """What time the API server says it is, to the second; None where it does not say."""
        response = self._answer("GET", "/version", Ref(Kind("", "", "", "/version", False), "", ""))
        written = response.headers.get("Date", "")
        return parsedate_to_datetime(written) if written else None

    def log(self, pod: Ref, container: str, *, lines: int, follow: bool = False) -> Iterator[str]:
        """The last lines of a container's log, and with `follow` those that come. Raises ClusterErrors."""
        query = {"container": container, "tailLines": str(lines), **({"follow": "true"} if follow else {})}
        path = f"{POD.path}/namespaces/{quote(pod.namespace)}/pods/{quote(pod.name)}/log?{urlencode(query)}"
        response = self._answer("GET", path, pod, accept="*/*", endless=follow, whole=False)
        pending = b""
        try:
            for chunk in response.stream(64 * 1024):
                *ended, pending = (pending + chunk).split(b"\n")
                yield from (line.decode(errors="replace") for line in ended)
        except urllib3.exceptions.HTTPError as error:
            raise _silent(pod, error) from error
        if pending:
            yield pending.decode(errors="replace")

    def apply(self, document: Document, *, dry_run: bool = False) -> Document:
        """Server-side apply, as `kubectl apply --server-side --force-conflicts` does."""
        query = {"fieldManager": FIELD_MANAGER, "force": "true", **({"dryRun": "All"} if dry_run else {})}
        return self._call(
            "PATCH", ref_of(document), body=document, query=query, content_type="application/apply-patch+yaml"
        )

    def amend(self, patch: Document, *, dry_run: bool = False) -> Document:
        """A JSON merge patch of the object that it names: null takes a field away."""
        return self._merge(ref_of(patch), patch, dry_run=dry_run)

    def annotate(self, ref: Ref, annotation: str, value: str | None) -> Document:
        """Sets an annotation, or removes it."""
        return self._merge(ref, {"metadata": {"annotations": {annotation: value}}})

    def _merge(self, ref: Ref, patch: Document, *, dry_run: bool = False) -> Document:
        query = {"fieldManager": FIELD_MANAGER, **({"dryRun": "All"} if dry_run else {})}
        return self._call("PATCH", ref, body=patch, query=query, content_type="application/merge-patch+json")

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
        # An unnamed Ref without a namespace is a list of all namespaces.
        namespace = ref.namespace or (self.namespace if ref.name else "")
        if ref.kind.namespaced and namespace:
            path += f"/namespaces/{quote(namespace)}"
        path += f"/{ref.kind.plural}" + (f"/{quote(ref.name)}" if ref.name else "")
        if query:
            path += f"?{urlencode(query)}"
        return self._send(method, path, ref, body=body, content_type=content_type)

    def _send(
        self, method: str, path: str, ref: Ref, *, body: Document | None = None, content_type: str = "application/json"
    ) -> Document:
        written = self._answer(method, path, ref, body=body, content_type=content_type).data
        document: Document = json.loads(written) if written else {}
        return document

    def _answer(
        self,
        method: str,
        path: str,
        ref: Ref,
        *,
        body: Document | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
        endless: bool = False,
        whole: bool = True,
    ) -> urllib3.BaseHTTPResponse:
        """The answer, its body read unless `whole` is false. Raises the ClusterErrors."""
        prepared = self._api.param_serialize(
            method,
            path,
            header_params={"Content-Type": content_type, "Accept": accept},
            body=body,
            auth_settings=["BearerToken"],
        )
        try:
            limit = None if endless else self._timeout
            response: urllib3.BaseHTTPResponse = self._api.call_api(*prepared, _request_timeout=limit).response
            written = response.data if whole or response.status >= 400 else b""
        except urllib3.exceptions.HTTPError as error:
            raise _silent(ref, error) from error
        if response.status >= 400:
            raise _refusal(ref, response.status, written.decode(errors="replace"))
        return response


def _silent(ref: Ref, error: urllib3.exceptions.HTTPError) -> UnavailableError:
    return UnavailableError(
        f"the API server does not answer ({type(error).__name__})",
        kind=ref.kind.kind,
        namespace=ref.namespace,
        name=ref.name,
        status=0,
        remedy="Check that the cluster runs and that the kubeconfig is current.",
    )


def _refusal(ref: Ref, status: int, written: str) -> ClusterError:
    """The error that an answer stands for, with its remedy."""
    try:
        told: Document = json.loads(written)
    except ValueError:
        told = {"message": written.strip()}
    unknown = status == 404 and not text(told, "details", "name")
    remedy = _REMEDIES.get(status, "")
    if unknown and ref.kind.group:
        remedy = f"The API server does not know {ref.kind.plural}.{ref.kind.group}: see `drivetrain doctor`."
    error = _ERRORS.get(status, UnavailableError if status >= 500 else ClusterError)
    return error(
        text(told, "message") or written.strip(),
        kind=ref.kind.kind,
        namespace=ref.namespace,
        name=ref.name,
        status=status,
        remedy=remedy,
    )
