"""Rows such as a stage may meet, to warm it up with."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ssp_sam.config import VOCABULARY_SIZE, Preset
from ssp_sam.preprocess import geometry_of
from ssp_sam.serving import contract

Array = npt.NDArray[Any]

_IMAGE_HW = (480, 640)
_EMPTY_PHRASE = (VOCABULARY_SIZE - 2, VOCABULARY_SIZE - 1)  # its start and its end


def sample_row(
    model: contract.Model, preset: Preset, phrases: int, image: bytes = b"", filling: int = 0
) -> dict[str, Array]:
    """Return inputs of a model by name, without the batch dimension: `filling` wherever that will do.

    image: a file, for a model that takes one.
    """
    token_ids = np.zeros((phrases, preset.text_positions), dtype=np.int32)
    token_ids[:, : len(_EMPTY_PHRASE)] = _EMPTY_PHRASE
    meaningful: dict[str, Array] = {
        contract.IMAGE.name: np.array([image], dtype=np.object_),
        contract.EXPRESSIONS.name: np.array([b"warm up"] * phrases, dtype=np.object_),
        contract.MASK_FORMAT.name: np.array([contract.DEFAULT_MASK_FORMAT.encode()], dtype=np.object_),
        contract.GEOMETRY.name: geometry_of(_IMAGE_HW, preset).to_array(),
        contract.TOKEN_IDS_NAME: token_ids,
    }
    shapes = {tensor: tuple(phrases if dim == -1 else dim for dim in tensor.dims) for tensor in model.inputs}
    filled = {tensor.name: np.full(shape, filling, tensor.numpy_dtype) for tensor, shape in shapes.items()}
    return {name: meaningful.get(name, values) for name, values in filled.items()}
