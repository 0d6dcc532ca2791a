"""Token transformers: every modality becomes symbols, and one transformer fills in whatever is missing."""
