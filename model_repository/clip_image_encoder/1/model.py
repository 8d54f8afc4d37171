"""Triton model `clip_image_encoder`: CLIP's image tower with the second stream."""

from ssp_sam.serving.stage_model import StageModel as TritonPythonModel

__all__ = ["TritonPythonModel"]
