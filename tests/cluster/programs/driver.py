"""A driver that only claims: the first incarnation works until it is taken away, the second shows that it is alone."""

import os
import sys
import time

import boto3

from drivetrain.api.errors import FencedError
from drivetrain.api.v1alpha1.dataset import SecretReference, Store
from drivetrain.pipelines.attempt import Claim, Fence
from drivetrain.pipelines.reporting import await_incarnation, sink_from
from drivetrain.store import open_store

ENDPOINT = "http://s3:7070"


def say(text: str) -> None:
    """Prints at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


cluster = os.environ["RAY_CLUSTER_NAME"]
sink = sink_from(os.environ, namespace=os.environ["DRIVETRAIN_NAMESPACE"], name="report", cluster=cluster)
number = await_incarnation(sink, cluster, deadline=120)
if number == 1:
    boto3.client("s3", endpoint_url=ENDPOINT, region_name="us-east-1").create_bucket(Bucket="contract")
credentials = SecretReference(secret_name="unused")
store = open_store(
    Store(uri="s3://contract/p", endpoint=ENDPOINT, region="us-east-1", credentials=credentials), os.environ
)
fence = Fence(store, "uid", Claim(1, number, cluster))
say(f"claimed {fence.writer} for {cluster}")
if number > 1:
    try:
        Fence(store, "uid", Claim(1, number - 1, "the cluster before"))
    except FencedError as error:
        say(f"refused: {error}")
    sys.exit(0)
while True:
    fence.check()
    time.sleep(0.2)
