"""Triton model `segment`: an image, or the id of one sent before, and phrases -> masks."""

from ssp_sam.serving.segment_model import SegmentModel as TritonPythonModel

__all__ = ["TritonPythonModel"]
