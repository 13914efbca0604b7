"""Keys of a project's store, as far as the person has them: from the Secret, else from the environment."""

import base64
import binascii
from collections.abc import Mapping

from drivetrain.api.documents import texts
from drivetrain.api.errors import ForbiddenError, StoreError
from drivetrain.api.kinds import SECRET, Ref
from drivetrain.api.v1alpha1.dataset import SecretReference, Store
from drivetrain.cli.reader import Reader
from drivetrain.store import ObjectStore, open_store
from drivetrain.store.opening import ACCESS_KEY_ENV, SECRET_KEY_ENV


def keys_of(reader: Reader, source: SecretReference, namespace: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The two S3 keys by the names of their variables.

    Raises StoreError: CredentialsForbidden, CredentialsMissing.
    """
    own = {name: environment[name] for name in (ACCESS_KEY_ENV, SECRET_KEY_ENV) if environment.get(name)}
    remedy = f"Set {ACCESS_KEY_ENV} and {SECRET_KEY_ENV} to keys of your own."
    try:
        found = reader.get(Ref(SECRET, namespace, source.secret_name))
    except ForbiddenError as error:
        if len(own) == 2:
            return own
        told = f"You may not read the Secret {source.secret_name} in namespace {namespace}."
        raise StoreError("CredentialsForbidden", told, remedy=remedy) from error
    data = texts(found or {}, "data")
    try:
        return {name: base64.b64decode(data[name]).decode() for name in (ACCESS_KEY_ENV, SECRET_KEY_ENV)}
    except (KeyError, binascii.Error, UnicodeDecodeError) as error:
        if len(own) == 2:
            return own
        what = f"has no key {error.args[0]}" if found is not None and isinstance(error, KeyError) else "cannot be used"
        told = f"The Secret {source.secret_name} {what if found is not None else f'is not in namespace {namespace}'}."
        raise StoreError("CredentialsMissing", told, remedy=f"Create it, or set {ACCESS_KEY_ENV} and so on.") from error


def store_of(
    reader: Reader, store: Store, namespace: str, environment: Mapping[str, str], *, endpoint: str | None = None
) -> ObjectStore:
    """The project's store with this person's keys; `endpoint` is used where the store names none.

    Raises StoreError; does not connect.
    """
    place = store.model_copy(update={"endpoint": store.endpoint or endpoint})
    return open_store(place, keys_of(reader, store.credentials, namespace, environment))
