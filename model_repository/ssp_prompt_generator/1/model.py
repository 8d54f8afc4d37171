"""Triton model `ssp_prompt_generator`: the Semantic-Spatial Prompt encoder."""

from ssp_sam.serving.stage_model import StageModel as TritonPythonModel

__all__ = ["TritonPythonModel"]
