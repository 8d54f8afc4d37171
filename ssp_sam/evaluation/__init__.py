"""The field's metrics for referring segmentation, and the measuring of a model with them. `metrics` imports no torch."""
