"""The object store adapter: S3 and what speaks like it."""

from workers.storage.store import ObjectStore, StoredObject

__all__ = ["ObjectStore", "StoredObject"]
