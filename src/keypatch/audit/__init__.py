"""Audits: `validate`, `stats` and `inspect` as functions that return typed results and never write into a store.

- `keypatch.audit.validate` finds damage, at three depths and against the sources; its codes are in
  `keypatch.audit.findings`.
- `keypatch.audit.stats` counts what a store holds and what its format saves.
- `keypatch.audit.inspect` describes stores, patches, volumes and annotation files; `keypatch.audit.picture` draws.
"""
