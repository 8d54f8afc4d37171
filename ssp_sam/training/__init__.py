"""Training, calibration and evaluation of a preset: `python -m ssp_sam.training --config configs/tiny.toml`."""
