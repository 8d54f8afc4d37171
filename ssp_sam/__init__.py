"""SSP-SAM on Triton: segment what a phrase refers to."""
