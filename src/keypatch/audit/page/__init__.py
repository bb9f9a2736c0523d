"""`stats` as one HTML file that opens offline: the figures, the plots, and a browser of some patches.

- `keypatch.audit.page.document` puts the file together and writes it.
- `keypatch.audit.page.choice` picks the patches, `keypatch.audit.page.voxels` makes them small.
- `keypatch.audit.page.plots` draws SVG; ``page.css`` and ``page.js`` lie beside it and go into the file as they are.
"""
