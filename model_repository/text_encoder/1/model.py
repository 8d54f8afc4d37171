"""Triton model `text_encoder`: tokenizer and CLIP's text tower."""

from ssp_sam.serving.stage_model import StageModel as TritonPythonModel

__all__ = ["TritonPythonModel"]
