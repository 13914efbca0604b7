"""`helm test`: trains one small model with the release as it stands, from rows on the store to Ready, and tidies up.

Runs in the Ray image: the standard library talks to the API server, boto3 to the store.
"""

import json
import os
import random
import signal
import ssl
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectTimeoutError, EndpointConnectionError, HTTPClientError

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
ROWS = 600
PRICES = (1.0, 1.5, 2.0, 2.5, 3.0)
REACHED_SECONDS = 60
"""How long the store may take to be reached: a name server remembers for a while that it did not know its name."""


def main(environment: dict[str, str]) -> int:
    """Return 0 once the run is Ready, else 1, having said why; tidy up as well when the Pod is deleted meanwhile."""
    signal.signal(signal.SIGTERM, end)
    store, secret = environment["TEST_STORE"], environment["TEST_SECRET"]
    if not store or not secret:
        print("There is no store to train with: give test.store (s3://bucket/prefix) and test.secretName (a Secret in")
        print("this namespace with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY), or set evaluation.enabled=true.")
        return 1
    watched, namespace = environment["TEST_WATCHED"].split(), environment["TEST_NAMESPACE"]
    if watched and namespace not in watched:
        print(f"The operator does not look after this namespace: add {namespace} to watchNamespaces.")
        return 1
    bucket, _, prefix = store.removeprefix("s3://").partition("/")
    key = "/".join(part for part in (prefix.strip("/"), "source", "visits.csv") if part)
    if not uploaded(environment, bucket, key):
        return 1
    project = json.loads(Path(environment["TEST_PROJECT"]).read_text())
    project["metadata"] = {"name": environment["TEST_NAME"], "namespace": namespace}
    data = project["spec"]["data"]
    place = {name: environment[variable] for name, variable in PLACE.items() if environment[variable]}
    data["store"] = {"uri": f"{store.rstrip('/')}/project", "credentials": {"secretName": secret}, **place}
    data["sources"][0]["uri"] = f"s3://{bucket}/{key}"
    api = Api(namespace)
    try:
        return train(api, project, minutes=int(environment["TEST_MINUTES"]))
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # this is what it asks for
        api("DELETE", f"drivetrainprojects/{environment['TEST_NAME']}")


def end(signal_number: int, frame: object) -> None:
    """Handle SIGTERM, which Helm's timeout brings: process 1 ignores it otherwise, and the project trains on."""
    sys.exit("The Pod was deleted before the run was Ready.")


PLACE = {"endpoint": "TEST_ENDPOINT", "region": "TEST_REGION"}


def uploaded(environment: dict[str, str], bucket: str, key: str) -> bool:
    """Upload the visits as soon as the store can be reached; return whether they are there, or say why not."""
    deadline = time.monotonic() + REACHED_SECONDS
    while True:
        try:
            upload(environment, bucket, key)
        except (ConnectTimeoutError, EndpointConnectionError, HTTPClientError) as error:
            if time.monotonic() >= deadline:
                print(f"The store could not be reached from this namespace for {REACHED_SECONDS} s: {error}")
                return False
        else:
            return True
        time.sleep(2)


def upload(environment: dict[str, str], bucket: str, key: str) -> None:
    """Write visits whose price is drawn at random, and who buy less the higher it is; make the bucket if it is new."""
    draw = random.Random(7)
    lines = ["visit,store,price,propensity,purchase"]
    for visit in range(ROWS):
        price = draw.choice(PRICES)
        bought = draw.random() < 1.1 - 0.35 * price
        lines.append(f"v{visit},{draw.randint(1, 4)},{price},{1 / len(PRICES)},{str(bought).lower()}")
    client = boto3.client(
        "s3",
        endpoint_url=environment["TEST_ENDPOINT"] or None,
        region_name=environment["TEST_REGION"] or "us-east-1",
        config=Config(s3={"addressing_style": "path" if environment["TEST_ENDPOINT"] else "auto"}),
    )
    try:
        client.head_bucket(Bucket=bucket)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
            raise
        client.create_bucket(Bucket=bucket)
    client.put_object(Bucket=bucket, Key=key, Body="\n".join(lines).encode())
    print(f"{ROWS} rows are at s3://{bucket}/{key}.", flush=True)


def train(api: "Api", project: dict[str, Any], minutes: int) -> int:
    """Declare the project, and follow its first run until it is Ready (0) or cannot be (1)."""
    name = project["metadata"]["name"]
    status, answer = api("POST", "drivetrainprojects", project)
    if status != 201:
        print(f"The project is refused: {answer.get('message')}")
        return 1
    deadline, said = time.monotonic() + 60 * minutes, ""
    while time.monotonic() < deadline:
        _, owner = api("GET", f"drivetrainprojects/{name}")
        _, runs = api("GET", f"trainingruns?fieldSelector=spec.project%3D{name}")
        shown = [condition for each in (owner, *runs.get("items", ())) for condition in told(each)]
        if shown and "; ".join(shown) != said:
            said = "; ".join(shown)
            print(said, flush=True)
        conditions = [condition for each in runs.get("items", ()) for condition in of(each)]
        if any(each["type"] == "Ready" and each["status"] == "True" for each in conditions):
            return 0
        if any(each["type"] == "Stalled" for each in (*conditions, *of(owner))):
            return 1
        time.sleep(2)
    print(f"The run was not Ready within {minutes} minutes.")
    return 1


def of(resource: dict[str, Any]) -> list[dict[str, str]]:
    """The conditions of a resource."""
    return list(resource.get("status", {}).get("conditions", ()))


def told(resource: dict[str, Any]) -> list[str]:
    """Whether it is Ready or Stalled, and why."""
    name = f"{resource.get('kind', 'TrainingRun')} {resource['metadata']['name']}"
    return [
        f"{name}: {each['type']}={each['status']}, {each['reason']}. {each['message']}".strip()
        for each in of(resource)
        if each["type"] in ("Ready", "Stalled")
    ]


class Api:
    """Our kinds in one namespace, with the Pod's own account."""

    def __init__(self, namespace: str) -> None:
        host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
        address = f"[{host}]" if ":" in host else host
        self.base = f"https://{address}:{port}/apis/drivetrain.dev/v1alpha1/namespaces/{namespace}/"
        self.tls = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))

    def __call__(self, method: str, path: str, body: object = None) -> tuple[int, dict[str, Any]]:
        """Return status and answer; 0 where none came, which passes."""
        request = urllib.request.Request(
            self.base + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": f"Bearer {(ACCOUNT / 'token').read_text().strip()}",
                "Content-Type": "application/json",
            },
        )
        try:
            with urllib.request.urlopen(request, context=self.tls, timeout=20) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)
        except OSError as error:
            return 0, {"message": str(error)}


if __name__ == "__main__":
    sys.exit(main(dict(os.environ)))
