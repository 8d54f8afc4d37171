"""The model in PyTorch, one module a stage; nothing here opens a file."""

from ssp_sam.modeling._lean_imports import import_segment_anything_modeling

import_segment_anything_modeling()
