"""Triton model `mask_decoder`: SAM's mask decoder on the written prompts."""

from ssp_sam.serving.stage_model import StageModel as TritonPythonModel

__all__ = ["TritonPythonModel"]
