"""The two ways to ask a model, in process and through a server, behind one protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ssp_sam.errors import InvalidArgumentError, UnavailableError
from ssp_sam.limits import MAX_PHRASES
from ssp_sam.preprocess import ImageInput, read_image
from ssp_sam.results import Segmentation

if TYPE_CHECKING:
    from ssp_sam.predictor import Predictor

Ask = Callable[[Sequence[str]], list[Segmentation]]
"""From at most `MAX_PHRASES` phrases to an answer each."""

DEFAULT_TIMEOUT_S = 120.0
RETRIES = 12  # with pauses that double up to 5 s: about 45 s in all


class Segmenter(Protocol):
    """A model that can be asked.

    identity: JSON values that tell this model from any other. concurrency: how many images to ask about at once.
    """

    @property
    def identity(self) -> Mapping[str, Any]: ...  # noqa: D102

    @property
    def concurrency(self) -> int: ...  # noqa: D102

    def about(self, image: ImageInput) -> Ask:
        """Take an image and return what answers phrases about it; raises SegmentationError."""

    def close(self) -> None:
        """Let go of what the model holds."""


class LocalSegmenter:
    """A model in this process."""

    concurrency = 1  # it uses all cores for one image already

    def __init__(self, predictor: Predictor, identity: Mapping[str, Any]) -> None:
        self._predictor = predictor
        self.identity = identity

    @classmethod
    def from_repository(cls, path: str | Path) -> LocalSegmenter:
        """Load the weights of a served model repository; raises InvalidArgumentError if it is none."""
        from ssp_sam.config import get_preset
        from ssp_sam.predictor import Predictor
        from ssp_sam.runtime import default_device, stage_runtime
        from ssp_sam.serving.contract import NETWORK_STAGES
        from ssp_sam.serving.repository import Manifest

        manifest, device = Manifest.read(path), default_device()
        preset = get_preset(manifest.preset)
        runtimes = {stage: stage_runtime(stage, preset, device, manifest.dtype).name for stage in NETWORK_STAGES}
        predictor = Predictor.from_repository(path, device=device)
        return cls(predictor, {"manifest": asdict(manifest), "device": device, "runtimes": runtimes})

    def about(self, image: ImageInput) -> Ask:
        """Compute the image's features and return what answers phrases about it."""
        return partial(self._predictor.segment, self._predictor.encode_image(image))

    def close(self) -> None:
        """Do nothing: the memory goes with the object."""


class ServedSegmenter:
    """A model behind a running server: `concurrency` images at once, with retries while the server is busy.

    url: gRPC address. transport: in place of one to `url`, for TLS or tests. Raises UnavailableError if no server
    answers there, InvalidArgumentError for another kind of address.
    """

    def __init__(
        self, url: str, *, concurrency: int = 8, timeout_s: float = DEFAULT_TIMEOUT_S, transport: Any = None
    ) -> None:
        import tritonclient.grpc

        from ssp_sam.client.clients import SegmentationClient, channel_args, grpc_target

        if concurrency < 1:
            raise InvalidArgumentError(f"concurrency is {concurrency}; at least 1")
        self.concurrency = concurrency
        transport = transport or tritonclient.grpc.InferenceServerClient(grpc_target(url), channel_args=channel_args())
        self._client = SegmentationClient(url, timeout_s=timeout_s, retries=RETRIES, transport=transport)
        if not self._client.is_ready():
            raise UnavailableError(f"no server is ready at {url}; start one with scripts/serve.py")
        self.identity: Mapping[str, Any] = {"server": url, "parameters": _served_parameters(transport, url)}

    def about(self, image: ImageInput) -> Ask:
        """Encode the image once and return what asks the server about it."""
        from ssp_sam.client.images import encode_image

        return partial(self._client.segment, encode_image(image))

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


def answers(
    segmenter: Segmenter, image: ImageInput, phrases: Sequence[str]
) -> list[Segmentation | InvalidArgumentError]:
    """Return the answers to any number of phrases about one image; an error in place of one that cannot be used.

    Benchmarks hold a few phrases that are empty or too long: they must not cost their neighbours' answers. Raises
    SegmentationError, for an image that cannot be used too.
    """
    ask = segmenter.about(image)
    chunks = (phrases[start : start + MAX_PHRASES] for start in range(0, len(phrases), MAX_PHRASES))
    result = [answer for chunk in chunks for answer in _each(ask, chunk)]
    if any(isinstance(answer, InvalidArgumentError) for answer in result):
        read_image(image)  # raises if it was the image
    return result


def _each(ask: Ask, phrases: Sequence[str]) -> Iterator[Segmentation | InvalidArgumentError]:
    try:
        yield from ask(phrases)
    except InvalidArgumentError as error:
        if len(phrases) == 1:
            yield error
        else:
            for phrase in phrases:
                yield from _each(ask, [phrase])


def _served_parameters(transport: Any, url: str) -> dict[str, dict[str, str]]:
    """Return {model: its parameters} of what a server has loaded; raises SegmentationError."""
    from tritonclient.utils import InferenceServerException

    from ssp_sam.client.messages import translate_error
    from ssp_sam.serving import contract

    names = (
        contract.SEGMENT,
        contract.SAM_IMAGE_ENCODER,
        contract.CLIP_IMAGE_ENCODER,
        contract.TEXT_ENCODER,
        contract.SSP_PROMPT_GENERATOR,
        contract.MASK_DECODER,
        contract.POSTPROCESS,
    )
    try:
        configs = {name: transport.get_model_config(name, as_json=True)["config"] for name in names}
    except InferenceServerException as error:
        raise translate_error(error, url) from error
    return {
        name: {key: value["string_value"] for key, value in sorted(config.get("parameters", {}).items())}
        for name, config in configs.items()
    }
