"""What a team's own code can try in a Pod of its run: `intruder.py`, with the other team's names in the environment.

Tries to change the other team's model, reports and runs with this team's own keys and token, and prints as one line of
JSON what each try was answered with: a status code of the API server, or a code of S3.
"""

import json
import os
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import boto3
from botocore.exceptions import ClientError

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
OWN, OTHER, MODEL = os.environ["OWN"], os.environ["OTHER"], os.environ["MODEL"]
MERGE, APPLY = "application/merge-patch+json", "application/apply-patch+yaml"
answers: dict[str, str] = {}


def asks_store(name: str, call: Callable[[], object]) -> None:
    """Keeps how S3 answers."""
    try:
        call()
        answers[name] = "OK"
    except ClientError as error:
        answers[name] = str(error.response["Error"]["Code"])


def asks_cluster(name: str, method: str, path: str, body: object = None, kind: str = MERGE) -> None:
    """Keeps the status code of the API server."""
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    request = urllib.request.Request(
        f"https://{host}:{port}{path}",
        data=None if body is None else json.dumps(body).encode(),
        method=method,
        headers={"Authorization": f"Bearer {(ACCOUNT / 'token').read_text()}", "Content-Type": kind},
    )
    trust = ssl.create_default_context(cafile=os.fspath(ACCOUNT / "ca.crt"))
    try:
        with urllib.request.urlopen(request, timeout=20, context=trust) as answer:
            answers[name] = str(answer.status)
    except urllib.error.HTTPError as error:
        answers[name] = str(error.code)


s3 = boto3.client("s3", endpoint_url=os.environ["STORE"], region_name="us-east-1")
asks_store("its own bucket: write", lambda: s3.put_object(Bucket=OWN, Key="tried", Body=b"mine"))
asks_store("model: read", lambda: s3.get_object(Bucket=OTHER, Key=MODEL))
asks_store("model: write", lambda: s3.put_object(Bucket=OTHER, Key=MODEL, Body=b"another model"))
asks_store("model: delete", lambda: s3.delete_object(Bucket=OTHER, Key=MODEL))
asks_store("model: copy", lambda: s3.copy_object(Bucket=OWN, Key="m", CopySource={"Bucket": OTHER, "Key": MODEL}))
asks_store("bucket: list", lambda: s3.list_objects_v2(Bucket=OTHER))
asks_store("log: write", lambda: s3.put_object(Bucket=OTHER, Key="renewals/log/outcomes/x.parquet", Body=b"lies"))
open_to_all = {"Effect": "Allow", "Principal": "*", "Action": "s3:*", "Resource": f"arn:aws:s3:::{OTHER}/*"}
policy = json.dumps({"Version": "2012-10-17", "Statement": [open_to_all]})
asks_store("bucket: open to all", lambda: s3.put_bucket_policy(Bucket=OTHER, Policy=policy))

core, ours = "/api/v1/namespaces", "/apis/drivetrain.dev/v1alpha1/namespaces"
lies = {"data": {"renewals": '{"result": {"state": "Approved"}}'}}
name, force = "trainingrun-renewals-1-report", "?fieldManager=intruder&force=true"
report = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, **lies}
asks_cluster("its own report: read", "GET", f"{core}/{OWN}/configmaps/{name}")
asks_cluster("its own secrets", "GET", f"{core}/{OWN}/secrets")
asks_cluster("its own ledger", "GET", f"{core}/{OWN}/configmaps/trainingrun-renewals-1-ledger")
asks_cluster("report: read", "GET", f"{core}/{OTHER}/configmaps/{name}")
asks_cluster("report: apply", "PATCH", f"{core}/{OTHER}/configmaps/{name}{force}", report, APPLY)
asks_cluster("report: merge", "PATCH", f"{core}/{OTHER}/configmaps/{name}", lies)
asks_cluster("report of the endpoint", "PATCH", f"{core}/{OTHER}/configmaps/deployment-renewals-report", lies)
asks_cluster("ledger", "PATCH", f"{core}/{OTHER}/configmaps/deployment-renewals-ledger", {"data": {}})
asks_cluster("policies", "PATCH", f"{core}/{OTHER}/configmaps/renewals-policies", {"data": {}})
asks_cluster("secrets", "GET", f"{core}/{OTHER}/secrets")
asks_cluster("run", "PATCH", f"{ours}/{OTHER}/trainingruns/renewals-1", {"spec": {"suspend": True}})
asks_cluster("run: status", "PATCH", f"{ours}/{OTHER}/trainingruns/renewals-1/status", {"status": {"why": "lies"}})
asks_cluster("project", "PATCH", f"{ours}/{OTHER}/drivetrainprojects/renewals", {"spec": {"levers": []}})
asks_cluster("endpoint", "DELETE", f"{ours}/{OTHER}/drivetraindeployments/renewals")
asks_cluster("pods", "GET", f"{core}/{OTHER}/pods")
sys.stdout.write(json.dumps(answers) + "\n")
