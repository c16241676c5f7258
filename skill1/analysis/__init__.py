"""Tables and figures of runs and studies, beside the published numbers."""
