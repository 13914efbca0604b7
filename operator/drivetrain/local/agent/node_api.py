"""The two requests of a kubelet that the operator's client has no need for: a pod's token, and a pod's end."""

from datetime import datetime

import aiohttp

from drivetrain.api.documents import Document, mapping, name_of, namespace_of, text, uid_of
from drivetrain.api.errors import ComponentError
from drivetrain.api.kinds import Ref
from drivetrain.controller.cluster.access import Access
from drivetrain.local.agent.facts import parse
from drivetrain.local.agent.volumes import Token


class NodeApi:
    """The API server as a kubelet uses it. Every method raises ComponentError when it refuses or does not answer."""

    def __init__(self, access: Access, session: aiohttp.ClientSession) -> None:
        self._access = access
        self._session = session

    async def token(self, pod: Document, wanted: Token) -> tuple[str, datetime]:
        """Return a token of the pod's ServiceAccount, bound to the pod, and when it expires."""
        account = text(pod, "spec", "serviceAccountName") or "default"
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": [wanted.audience] if wanted.audience else [],
                "expirationSeconds": max(600, wanted.seconds),
                "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": name_of(pod), "uid": uid_of(pod)},
            },
        }
        path = f"/api/v1/namespaces/{namespace_of(pod)}/serviceaccounts/{account}/token"
        status, found = await self._call("POST", path, body)
        if status >= 300:
            raise ComponentError(f"failed to fetch token: {text(found, 'message')}")
        answer = mapping(found, "status")
        return text(answer, "token"), parse(text(answer, "expirationTimestamp"))

    async def remove(self, pod: Ref, uid: str) -> None:
        """Remove a pod whose process is gone; another pod of its name, or none, is fine."""
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0, "preconditions": {"uid": uid}}
        status, found = await self._call("DELETE", f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}", body)
        if status >= 300 and status not in (404, 409):
            raise ComponentError(f"{pod} is not removed: {text(found, 'message')}")

    async def _call(self, method: str, path: str, body: object) -> tuple[int, Document]:
        headers = {"Authorization": f"Bearer {self._access.token()}"}
        tls = self._access.tls if self._access.tls is not None else True
        try:
            async with self._session.request(
                method,
                self._access.server + path,
                json=body,
                headers=headers,
                ssl=tls,
                timeout=aiohttp.ClientTimeout(10),
            ) as response:
                found = await response.json(content_type=None)
                return response.status, found if isinstance(found, dict) else {}
        except (TimeoutError, aiohttp.ClientError) as error:
            raise ComponentError(f"The API server does not answer: {error}.") from error
