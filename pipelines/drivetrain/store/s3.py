"""The store on S3, by boto3; its errors leave as StoreError that says what a person can do."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import boto3
from boto3.exceptions import Boto3Error
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from drivetrain.api.errors import StoreError
from drivetrain.api.layout import location_of
from drivetrain.api.v1alpha1.dataset import Store
from drivetrain.store.port import ObjectInfo, ObjectMissingError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_MISSING = {"NoSuchKey", "404", "NotFound"}
_REJECTED = {
    "AccessDenied",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "InvalidToken",
    "XAdminUserNotFound",  # versitygw's word for an unknown access key; its HEAD then says 404
    "403",
}
_CONDITION_FAILED = {"PreconditionFailed", "412"}
_CONFLICT = {"ConditionalRequestConflict", "OperationAborted"}
_CONFLICT_TRIES = 5
_TROUBLE = {"SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout", *_CONFLICT}


class S3Store:
    """Objects below the store's uri. One client, safe to share between threads."""

    def __init__(self, store: Store, access_key: str, secret_key: str) -> None:
        self._location = location_of(store.uri)
        self._client: S3Client = boto3.session.Session().client(
            "s3",
            endpoint_url=store.endpoint,
            region_name=store.region or "us-east-1",
            aws_access_key_id=access_key,
            aws_secret_access_key=secret_key,
            config=Config(
                signature_version="s3v4",
                connect_timeout=5,
                read_timeout=60,
                max_pool_connections=16,
                retries={"mode": "standard", "max_attempts": 4},
                # Gateways other than AWS know buckets by path, and not every one knows the newer checksums.
                s3={"addressing_style": "path" if store.endpoint else "auto"},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )
        self._endpoint = self._client.meta.endpoint_url

    def uri(self, key: str = "") -> str:
        return self._location.uri(key)

    def get(self, key: str) -> bytes:
        with self._translated(key):
            return self._client.get_object(Bucket=self._location.bucket, Key=self._location.key(key))["Body"].read()

    def put(self, key: str, data: bytes) -> None:
        with self._translated(key):
            self._client.put_object(Bucket=self._location.bucket, Key=self._location.key(key), Body=data)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        bucket, full = self._location.bucket, self._location.key(key)
        return self._conditional(
            key, lambda: self._client.put_object(Bucket=bucket, Key=full, Body=data, IfNoneMatch="*")
        )

    def put_if_match(self, key: str, data: bytes, etag: str) -> bool:
        bucket, full = self._location.bucket, self._location.key(key)
        return self._conditional(key, lambda: self._client.put_object(Bucket=bucket, Key=full, Body=data, IfMatch=etag))

    def _conditional(self, key: str, write: Callable[[], object]) -> bool:
        """Whether the write took place. S3 answers 409 while another write of the key is under way: asked again."""
        with self._translated(key):
            for rest in range(_CONFLICT_TRIES, -1, -1):
                try:
                    write()
                except ClientError as error:
                    if _code(error) in _CONDITION_FAILED | _MISSING:
                        return False
                    if _code(error) not in _CONFLICT or not rest:
                        raise
                else:
                    return True
        raise AssertionError("unreachable: the last try returns or raises")

    def head(self, key: str) -> ObjectInfo | None:
        with self._translated(key):
            try:
                found = self._client.head_object(Bucket=self._location.bucket, Key=self._location.key(key))
            except ClientError as error:
                if _code(error) in _MISSING:
                    return None
                raise
            return ObjectInfo(key, found["ETag"].strip('"'), found["ContentLength"], found["LastModified"])

    def list(self, prefix: str, start_after: str = "") -> Iterator[ObjectInfo]:
        own = self._location.key("")
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._location.bucket,
            Prefix=self._location.key(prefix),
            StartAfter=self._location.key(start_after) if start_after else "",
        )
        with self._translated(prefix):
            for page in pages:
                for found in page.get("Contents", ()):
                    if not found["Key"].endswith("/"):  # a marker that some tools leave for a folder
                        key = found["Key"].removeprefix(own)
                        yield ObjectInfo(key, found["ETag"].strip('"'), found["Size"], found["LastModified"])

    def delete(self, key: str) -> None:
        with self._translated(key):
            self._client.delete_object(Bucket=self._location.bucket, Key=self._location.key(key))

    def upload(self, key: str, file: Path) -> None:
        with self._translated(key):
            self._client.upload_file(str(file), self._location.bucket, self._location.key(key))

    def download(self, key: str, file: Path) -> None:
        with self._translated(key):  # boto3 downloads beside the file and renames
            self._client.download_file(self._location.bucket, self._location.key(key), str(file))

    @contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        try:
            yield
        except ClientError as error:
            self._raise(error, key)
        except (BotoCoreError, Boto3Error) as error:
            raise StoreError(
                "StoreUnavailable",
                f"The store at {self._endpoint} did not answer for {self.uri(key)}: {error}.",
                remedy="Check data.store.endpoint and whether the network lets this pod reach it.",
            ) from error

    def _raise(self, error: ClientError, key: str) -> NoReturn:
        code = _code(error)
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if code in _MISSING:
            raise ObjectMissingError(self.uri(key)) from None
        if code == "NoSuchBucket":
            raise StoreError(
                "BucketMissing",
                f"There is no bucket {self._location.bucket} at {self._endpoint}.",
                remedy="Create it, or correct data.store.uri.",
            ) from error
        if code in _REJECTED or status in (401, 403):
            raise StoreError(
                "CredentialsRejected",
                f"The store at {self._endpoint} refuses {self.uri(key)} with these credentials ({code}).",
                remedy="Check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the Secret, and what they may do.",
            ) from error
        if code in _TROUBLE or status >= 500:
            raise StoreError(
                "StoreUnavailable", f"The store at {self._endpoint} is in trouble ({code}).", remedy="Try again later."
            ) from error
        raise StoreError("StoreRefused", f"The store refuses {self.uri(key)}: {error}.") from error


def _code(error: ClientError) -> str:
    return error.response.get("Error", {}).get("Code", "")
