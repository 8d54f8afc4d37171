"""Scoring on the field's benchmarks, its metrics, and calibration. Only `answers` and `calibration` import torch."""
