"""Notebooks by papermill, single and in batches: experiments, sweeps, the demo and the reproduction."""

import sys

# jsonschema, which notebooks are checked with, compiles a grammar of international addresses where it finds one: over a
# second. No schema of a notebook has such an address.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
