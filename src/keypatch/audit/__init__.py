"""Audits: `validate`, `stats` and `inspect` as functions that return typed results and never write into a store."""

from __future__ import annotations
