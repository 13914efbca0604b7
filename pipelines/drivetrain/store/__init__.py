"""The project's object store: one S3 prefix, or a directory that behaves like one. Keys are relative to the prefix."""

from drivetrain.store.directory import DirectoryStore
from drivetrain.store.opening import open_store
from drivetrain.store.port import ObjectInfo, ObjectMissingError, ObjectStore
from drivetrain.store.s3 import S3Store

__all__ = ["DirectoryStore", "ObjectInfo", "ObjectMissingError", "ObjectStore", "S3Store", "open_store"]
