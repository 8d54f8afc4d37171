"""Everything in one Triton model. SSP_SAM_REPOSITORY: where the weights are."""

import os
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from ssp_sam.predictor import Predictor
from ssp_sam.results import encode_rle
from ssp_sam.runtime import keep_freed_memory


class TritonPythonModel:
    """Answers one request after the other."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the weights."""
        keep_freed_memory()
        threads = len(os.sched_getaffinity(0))
        self.predictor = Predictor.from_repository(os.environ["SSP_SAM_REPOSITORY"], threads=threads)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        def value(name: str) -> Any:
            return pb_utils.get_input_tensor_by_name(request, name).as_numpy()[0]

        phrases = [phrase.decode() for phrase in value("expressions")]
        found = self.predictor.segment(value("image")[0], phrases, mask_threshold=float(value("mask_threshold")[0]))
        outputs = {
            "masks": np.array([encode_rle(each.mask) for each in found], dtype=np.object_),
            "box_xyxy_px": np.stack([each.box_xyxy_px for each in found]),
            "score": np.array([each.score for each in found], dtype=np.float32),
            "no_target": np.array([each.no_target for each in found]),
            "area_px": np.array([each.area_px for each in found], dtype=np.int64),
            "image_size": np.array(found[0].mask.shape, dtype=np.int32),
        }
        tensors = [pb_utils.Tensor(name, values[None]) for name, values in outputs.items()]
        return pb_utils.InferenceResponse(output_tensors=tensors)
