"""Opens the project's store from the environment that the operator renders."""

from collections.abc import Mapping

from drivetrain.api.errors import StoreError
from drivetrain.api.v1alpha1.dataset import Store
from drivetrain.store.s3 import S3Store

ACCESS_KEY_ENV = "AWS_ACCESS_KEY_ID"
SECRET_KEY_ENV = "AWS_SECRET_ACCESS_KEY"  # noqa: S105 - the name of a variable, not a password


def open_store(store: Store, env: Mapping[str, str]) -> S3Store:
    """The store with the credentials in `env`. Raises StoreError, reason CredentialsMissing; does not connect."""
    try:
        return S3Store(store, env[ACCESS_KEY_ENV], env[SECRET_KEY_ENV])
    except KeyError as error:
        raise StoreError(
            "CredentialsMissing",
            f"{error.args[0]} is not set, so {store.uri} cannot be read.",
            remedy=f"The Secret {store.credentials.secret_name} needs the keys {ACCESS_KEY_ENV} and {SECRET_KEY_ENV}.",
        ) from None
