"""Triton model `sam_image_encoder`: SAM's image encoder."""

from ssp_sam.serving.stage_model import StageModel as TritonPythonModel

__all__ = ["TritonPythonModel"]
