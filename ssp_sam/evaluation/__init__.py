"""The field's metrics for referring segmentation, and calibration. `metrics` imports no torch."""
