"""Triton model `postprocess`: masks and boxes of the image's own size."""

from ssp_sam.serving.stage_model import StageModel as TritonPythonModel

__all__ = ["TritonPythonModel"]
