"""The store: its names, its files, its writer and its reader.

Only this package knows where a byte of a store lies.
"""

from __future__ import annotations

from keypatch.formats.store.layout import StoreLayout
from keypatch.formats.store.reader import Patch, Store
from keypatch.formats.store.writer import UnitRecord, write_metadata, write_unit

__all__ = ["Patch", "Store", "StoreLayout", "UnitRecord", "write_metadata", "write_unit"]
