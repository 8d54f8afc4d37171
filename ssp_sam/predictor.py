"""In process: an image and phrases -> what the phrases refer to. The reference that the server is compared with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from ssp_sam.config import Preset, get_preset
from ssp_sam.errors import InvalidArgumentError
from ssp_sam.limits import check_threshold
from ssp_sam.networks import Array, Network, load_network, network_of
from ssp_sam.postprocess import Calibration, interpret
from ssp_sam.preprocess import Geometry, ImageInput, prepare, read_image
from ssp_sam.results import Segmentation
from ssp_sam.runtime import cpu_threads, default_device, stage_runtime
from ssp_sam.serving.contract import NETWORK_STAGES, PYTHON
from ssp_sam.serving.repository import Manifest, prepare_repository, weights_path
from ssp_sam.tokenizer import tokenize

if TYPE_CHECKING:
    from ssp_sam.modeling.ssp_sam import SspSam


class ImageFeatures(NamedTuple):
    """What depends on the image alone: image_embedding (1, D, G, G), clip_tokens (1, 1+N, C), geometry."""

    image_embedding: Array
    clip_tokens: Array
    geometry: Geometry


class Predictor:
    """SSP-SAM in process.

    It keeps no state between calls, so threads may share it.

    Args:
        networks: of all stages, by their names.
        preset: of the networks.
        calibration: of the checkpoint.
        embedding_dtype: the precision in which image embeddings are kept; a repository's is that of its wire.
    """

    def __init__(
        self,
        networks: Mapping[str, Network],
        preset: Preset,
        *,
        calibration: Calibration | None = None,
        embedding_dtype: npt.DTypeLike = np.float32,
    ) -> None:
        self.networks = networks
        self.preset = preset
        self.calibration = calibration or Calibration()
        self.embedding_dtype = embedding_dtype

    @classmethod
    def from_repository(cls, path: str | Path, *, device: str | None = None, threads: int | None = None) -> Predictor:
        """Load the weights of a served model repository.

        device: a torch device name; the default is the GPU where there is one. threads: of the CPU; the default is one
        for each core, or what OMP_NUM_THREADS says. Raises InvalidArgumentError if `path` is no repository, its weights
        do not fit its preset, or they are ONNX files.
        """
        manifest = Manifest.read(path)
        if manifest.backend != PYTHON:
            raise InvalidArgumentError(
                f"{path} holds networks for the backend {manifest.backend}; in process, a repository built with "
                f"--backend {PYTHON} is needed"
            )
        preset = get_preset(manifest.preset)
        runtimes = prepare_repository(path, manifest, device or default_device())
        networks = {
            stage: load_network(stage, preset, weights_path(path, stage), runtime, threads or cpu_threads())
            for stage, runtime in runtimes.items()
        }
        embedding_dtype = np.float16 if manifest.embedding_dtype == "FP16" else np.float32
        return cls(networks, preset, calibration=manifest.calibration, embedding_dtype=embedding_dtype)

    @classmethod
    def of(
        cls,
        model: SspSam,
        *,
        calibration: Calibration | None = None,
        device: str | None = None,
        dtype: str = "auto",
        threads: int | None = None,
    ) -> Predictor:
        """Take over a model in memory. dtype: one of `ssp_sam.runtime.DTYPES`; all else as in `from_repository`."""
        preset, device = model.preset, device or default_device()
        networks = {
            stage: network_of(
                stage,
                model.get_submodule(stage),
                preset,
                stage_runtime(stage, preset, device, dtype),
                threads or cpu_threads(),
            )
            for stage in NETWORK_STAGES
        }
        return cls(networks, preset, calibration=calibration)

    def encode_image(self, image: ImageInput) -> ImageFeatures:
        """Compute what depends on the image alone, to be used with any number of phrases later.

        image: RGB uint8 array (H, W, 3), Pillow image, path, or the bytes of an image file. Raises
        InvalidArgumentError.
        """
        inputs = prepare(read_image(image), self.preset)
        geometry = inputs.geometry.to_array()[None]
        (embedding,) = self.networks["sam_image_encoder"](inputs.sam_image[None], geometry[:, 1])
        (clip_tokens,) = self.networks["clip_image_encoder"](inputs.clip_image[None], geometry[:, 2], geometry[:, 3])
        return ImageFeatures(embedding.astype(self.embedding_dtype, copy=False), clip_tokens, inputs.geometry)

    def segment(
        self, image: ImageInput | ImageFeatures, phrases: Sequence[str], *, mask_threshold: float = 0.0
    ) -> list[Segmentation]:
        """Return what each phrase refers to, in the order of the phrases.

        image: as for `encode_image`, or its answer. A pixel belongs to a mask if its logit is above `mask_threshold`.
        Raises InvalidArgumentError for an image, a phrase or a threshold that cannot be used.
        """
        token_ids = tokenize(phrases, self.preset.text_positions)
        check_threshold(mask_threshold)
        features = image if isinstance(image, ImageFeatures) else self.encode_image(image)
        answers: list[Segmentation] = []
        for start in range(0, len(phrases), self.preset.phrases_per_chunk):
            chunk = slice(start, start + self.preset.phrases_per_chunk)
            answers += self._segment_chunk(features, phrases[chunk], token_ids[chunk], mask_threshold)
        return answers

    def _segment_chunk(
        self, features: ImageFeatures, phrases: Sequence[str], token_ids: Array, mask_threshold: float
    ) -> Iterator[Segmentation]:
        image_index = np.zeros(len(phrases), dtype=np.int64)
        of_text = self.networks["text_encoder"](token_ids)
        prompt_tokens, boxes, *_, similarity = self.networks["ssp_prompt_generator"](
            features.clip_tokens, token_ids, *of_text, image_index
        )
        mask_logits, iou = self.networks["mask_decoder"](features.image_embedding, prompt_tokens, image_index)
        found = interpret(
            mask_logits,
            boxes,
            iou,
            similarity.max(axis=1),
            features.geometry,
            sam_side_px=self.preset.sam.image_side_px,
            clip_side_px=self.preset.clip.image_side_px,
            calibration=self.calibration,
            mask_threshold=mask_threshold,
        )
        for phrase, answer in zip(phrases, found, strict=True):
            yield Segmentation(phrase, answer.mask, answer.box_xyxy_px, answer.score, answer.no_target, answer.area_px)
