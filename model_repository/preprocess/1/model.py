"""Triton model `preprocess`: checks a request, decodes and resizes its image."""

from ssp_sam.serving.stage_model import StageModel as TritonPythonModel

__all__ = ["TritonPythonModel"]
