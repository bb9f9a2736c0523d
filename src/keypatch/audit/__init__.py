"""Audits: `validate`, `stats` and `inspect` as functions that return typed results and never write into a store.

And `repair`, which does.

- `keypatch.audit.validate` finds damage, at three depths and against the sources; its codes are in
  `keypatch.audit.findings`.
- `keypatch.audit.repair` makes damaged shards again and proves that they are what was written.
- `keypatch.audit.stats` counts what a store holds and what its format saves; `keypatch.audit.page` writes it as a page.
- `keypatch.audit.inspect` describes stores, patches, volumes and annotation files; `keypatch.audit.picture` draws.
"""
