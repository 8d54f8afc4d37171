"""The stages that compute a network, in whatever runtime."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ssp_sam.config import Preset
from ssp_sam.errors import SegmentationError
from ssp_sam.networks import Network, load_network
from ssp_sam.runtime import OPENVINO, cpu_threads, stage_runtime
from ssp_sam.serving import contract
from ssp_sam.serving.sample_rows import sample_row
from ssp_sam.serving.stages import (
    Answer,
    Array,
    Row,
    Stage,
    check_phrase_counts,
    chunks,
    decode_expressions,
    encoded_tokens,
)
from ssp_sam.tokenizer import tokenize

IntArray = npt.NDArray[np.int64]

# A server that starts has this long for sizes that may come; those of large image encoders do not matter as much.
MEETING_SIZES_S = 5.0


class NetworkStage(Stage):
    """A stage with a network."""

    def __init__(self, network: Network, preset: Preset) -> None:
        self.network = network
        self.preset = preset


class SamImageEncoderStage(NetworkStage):
    """sam_image -> image_embedding, all rows at once."""

    def __init__(self, network: Network, preset: Preset, embedding_dtype: str) -> None:
        super().__init__(network, preset)
        self.output = contract.image_embedding(preset, embedding_dtype)

    def run(self, rows: Sequence[Row]) -> list[Answer]:
        """Answer each row, in order."""
        images = np.stack([row[contract.sam_image(self.preset).name] for row in rows])
        geometry = np.stack([row[contract.GEOMETRY.name] for row in rows])
        (embeddings,) = self.network(images, geometry[:, 1])
        return [{self.output.name: row} for row in embeddings.astype(self.output.numpy_dtype, copy=False)]


class ClipImageEncoderStage(NetworkStage):
    """clip_image -> clip_tokens, all rows at once."""

    def run(self, rows: Sequence[Row]) -> list[Answer]:
        """Answer each row, in order."""
        images = np.stack([row[contract.clip_image(self.preset).name] for row in rows])
        geometry = np.stack([row[contract.GEOMETRY.name] for row in rows])
        (tokens,) = self.network(images, geometry[:, 2], geometry[:, 3])
        return [{contract.clip_tokens(self.preset).name: row} for row in tokens]


class PhraseStage(NetworkStage):
    """A stage that computes the phrases of all rows together, `preset.phrases_per_chunk` at a time."""

    def run(self, rows: Sequence[Row]) -> list[Answer]:
        """Answer each row, in order."""
        prepared: list[Row | SegmentationError] = []
        for row in rows:
            try:
                prepared.append(self.prepare(row))
            except SegmentationError as error:
                prepared.append(error)
        good = [row for row in prepared if not isinstance(row, SegmentationError)]
        answers = iter(self._run_prepared(good) if good else [])
        return [row if isinstance(row, SegmentationError) else next(answers) for row in prepared]

    def prepare(self, row: Row) -> Row:
        """Check a row; returns what `compute` works on."""
        check_phrase_counts(row, self.per_phrase)
        return row

    per_phrase: tuple[str, ...]
    per_image: tuple[str, ...] = ()

    @abstractmethod
    def compute(self, phrases: Mapping[str, Array], images: Mapping[str, Array]) -> dict[str, Array]:
        """Answer a chunk of phrases.

        phrases: the `per_phrase` inputs, and `image_index`, an integer (P,) into the rows of `images`; images: the
        `per_image` inputs, one row an image.
        """

    def _run_prepared(self, rows: Sequence[Row]) -> list[Answer]:
        counts = [len(row[self.per_phrase[0]]) for row in rows]
        image_index = np.repeat(np.arange(len(rows)), counts)
        phrases = {name: np.concatenate([row[name] for row in rows]) for name in self.per_phrase}
        parts = []
        for chunk in chunks(len(image_index), self.preset.phrases_per_chunk):
            # Only the images of this chunk: the rows may hold more of them than fit beside its phrases.
            first, last = int(image_index[chunk][0]), int(image_index[chunk][-1]) + 1
            different, place = _different(rows[first:last], self.per_image)
            images = {name: np.stack([row[name] for row in different]) for name in self.per_image}
            inputs = {name: values[chunk] for name, values in phrases.items()}
            inputs["image_index"] = place[image_index[chunk] - first]
            parts.append(self.compute(inputs, images))
        joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        ends = np.cumsum(counts)
        return [
            {name: values[end - count : end] for name, values in joined.items()}
            for count, end in zip(counts, ends, strict=True)
        ]


def _different(rows: Sequence[Row], names: Sequence[str]) -> tuple[list[Row], IntArray]:
    """Return the rows that differ in these inputs, and for each of `rows` which of them it is like.

    Rows that were joined are often about the same image, which is then computed once. To compare costs little: what
    differs mostly does so from the start.
    """
    different: list[Row] = []
    place = np.empty(len(rows), dtype=np.int64)
    by_start: dict[tuple[bytes, ...], list[int]] = {}
    for index, row in enumerate(rows):
        alike = by_start.setdefault(tuple(row[name][:1].tobytes() for name in names), [])
        for known in alike:
            if all(_same_bytes(different[known][name], row[name]) for name in names):
                place[index] = known
                break
        else:
            place[index] = len(different)
            alike.append(len(different))
            different.append(row)
    return different, place


def _same_bytes(a: Array, b: Array) -> bool:
    """Say whether two arrays of one shape and type are the same, bit for bit; numpy compares float16 slowly."""
    return np.array_equal(a.view(np.uint8), b.view(np.uint8))


class TextEncoderStage(PhraseStage):
    """expressions -> token_ids, text_embedding, word_embeddings, tokens."""

    per_phrase = (contract.TOKEN_IDS_NAME,)

    def prepare(self, row: Row) -> Row:
        """Tokenize the phrases of a row."""
        phrases = decode_expressions(row[contract.EXPRESSIONS.name].tolist())
        return {contract.TOKEN_IDS_NAME: tokenize(phrases, self.preset.text_positions)}

    def compute(self, phrases: Mapping[str, Array], images: Mapping[str, Array]) -> dict[str, Array]:
        """Answer a chunk of phrases."""
        token_ids = phrases[contract.TOKEN_IDS_NAME]
        text_embedding, word_embeddings = self.network(token_ids)
        return {
            contract.TOKEN_IDS_NAME: token_ids,
            contract.text_embedding(self.preset).name: text_embedding,
            contract.word_embeddings(self.preset).name: word_embeddings,
            contract.TOKENS_NAME: encoded_tokens(token_ids),
        }


class SspPromptGeneratorStage(PhraseStage):
    """CLIP features of image and phrase -> prompt_tokens, box, similarity_peak, attention maps."""

    def __init__(self, network: Network, preset: Preset) -> None:
        super().__init__(network, preset)
        self.per_image = (contract.clip_tokens(preset).name,)
        self.per_phrase = (
            contract.TOKEN_IDS_NAME,
            contract.text_embedding(preset).name,
            contract.word_embeddings(preset).name,
        )

    def compute(self, phrases: Mapping[str, Array], images: Mapping[str, Array]) -> dict[str, Array]:
        """Answer a chunk of phrases."""
        (clip_tokens,) = (images[name] for name in self.per_image)
        of_phrases = (phrases[name] for name in self.per_phrase)
        prompt_tokens, box, phrase_attention, spatial_attention, similarity = self.network(
            clip_tokens, *of_phrases, phrases["image_index"]
        )
        grid = self.preset.clip.grid
        return {
            contract.prompt_tokens(self.preset).name: prompt_tokens,
            contract.BOX_CXCYWH_NORM.name: box,
            contract.SIMILARITY_PEAK.name: similarity.max(axis=1),
            contract.PHRASE_ATTENTION_NAME: phrase_attention,
            contract.spatial_attention(self.preset).name: spatial_attention.reshape(-1, grid, grid),
        }


class MaskDecoderStage(PhraseStage):
    """image_embedding and prompt_tokens -> mask_logits, iou."""

    def __init__(self, network: Network, preset: Preset) -> None:
        super().__init__(network, preset)
        self.per_image = (contract.image_embedding(preset, "FP32").name,)
        self.per_phrase = (contract.prompt_tokens(preset).name,)

    def compute(self, phrases: Mapping[str, Array], images: Mapping[str, Array]) -> dict[str, Array]:
        """Answer a chunk of phrases."""
        image_embedding, prompt_tokens = images[self.per_image[0]], phrases[self.per_phrase[0]]
        mask_logits, iou = self.network(image_embedding, prompt_tokens, phrases["image_index"])
        return {contract.mask_logits(self.preset).name: mask_logits, contract.IOU.name: iou}


_STAGES: dict[str, Callable[[Network, Preset], NetworkStage]] = {
    contract.CLIP_IMAGE_ENCODER: ClipImageEncoderStage,
    contract.TEXT_ENCODER: TextEncoderStage,
    contract.SSP_PROMPT_GENERATOR: SspPromptGeneratorStage,
    contract.MASK_DECODER: MaskDecoderStage,
}


def load_network_stage(
    name: str, preset: Preset, parameters: Mapping[str, str], weights: Path, device: str
) -> NetworkStage:
    """Build the stage `name` with its weights, on `device`."""
    runtime = stage_runtime(name, preset, device, parameters["dtype"])
    network = load_network(name, preset, weights, runtime, cpu_threads(parameters["threads"]))
    embedding_dtype = parameters.get("embedding_dtype", "FP32")
    stage = network_stage(name, network, preset, embedding_dtype)
    if runtime.engine == OPENVINO:
        (model,) = (model for model in contract.stage_models(preset, embedding_dtype) if model.name == name)
        meet_sizes(stage, model, preset, MEETING_SIZES_S)
    return stage


def meet_sizes(stage: Stage, model: contract.Model, preset: Preset, most_s: float) -> int:
    """Run a stage on batches of every size that its network may meet, as far as there is time; return the largest.

    OpenVINO compiles a network for each size when it first comes, which takes longer than to compute. Image encoders
    compute one image at a time. Elsewhere a batch of n images with a phrase each is of size n in both. The largest goes
    first: memory that grows size by size has holes.
    """
    largest = preset.phrases_per_chunk if isinstance(stage, PhraseStage) else 1
    rows = [sample_row(model, preset, phrases=1, filling=index) for index in range(largest)]  # no image comes twice
    stage.run(rows[:1])
    began_s = time.perf_counter()
    stage.run(rows[:1])
    one_s = time.perf_counter() - began_s
    while largest > 1 and one_s * largest * (largest + 1) / 2 > most_s:
        largest -= 1
    for size in range(largest, 1, -1):
        stage.run(rows[:size])
    return largest


def network_stage(name: str, network: Network, preset: Preset, embedding_dtype: str) -> NetworkStage:
    """Return the stage `name` around its network.

    embedding_dtype: "FP16" or "FP32", in which image embeddings travel; it matters to the stage that makes them.
    """
    if name == contract.SAM_IMAGE_ENCODER:
        return SamImageEncoderStage(network, preset, embedding_dtype)
    return _STAGES[name](network, preset)
