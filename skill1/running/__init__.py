"""Notebooks by papermill, single and in batches: experiments, sweeps, the demo and the reproduction."""
