"""Training and calibration of a preset: `python -m ssp_sam.training --config configs/tiny/01_basics.toml`."""
