from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from ssp_sam.config import get_preset
from ssp_sam.modeling.sam import MaskDecoder
from ssp_sam.modeling.ssp import LinguisticAdapter, SspPromptGenerator, read_words
from ssp_sam.modeling.ssp_sam import STAGES, SspSam
from ssp_sam.preprocess import prepare
from ssp_sam.tokenizer import tokenize

TINY = get_preset("tiny")
CLOSE = {"atol": 1e-4, "rtol": 1e-4}


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    torch.manual_seed(0)
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def model() -> SspSam:
    torch.manual_seed(0)
    return SspSam(TINY).eval().requires_grad_(False)


# --- mask decoder -----------------------------------------------------------------------------------------------------


def decoder_inputs(phrases: int, images: int) -> tuple[torch.Tensor, torch.Tensor]:
    sam = TINY.sam
    return (
        torch.randn(images, sam.out_channels, sam.grid, sam.grid),
        torch.randn(phrases, TINY.ssp.prompt_tokens, sam.out_channels),
    )


def test_phrases_over_several_images_are_decoded_as_sam_decodes_one_image() -> None:
    ours = MaskDecoder(TINY.sam).eval()
    embeddings, prompts = decoder_inputs(phrases=7, images=3)
    image_index = torch.tensor([2, 0, 0, 1, 2, 2, 0])

    logits, iou = ours(embeddings, prompts, image_index)

    assert logits.shape == (7, TINY.sam.mask_side, TINY.sam.mask_side)
    assert iou.shape == (7,)
    grid = (TINY.sam.grid, TINY.sam.grid)
    for image in range(3):
        own = image_index == image
        sam_logits, sam_iou = ours.decoder(
            image_embeddings=embeddings[image : image + 1],
            image_pe=ours.pe_layer(grid)[None],
            sparse_prompt_embeddings=prompts[own],
            dense_prompt_embeddings=ours.no_mask_embed.weight.reshape(1, -1, 1, 1).expand(int(own.sum()), -1, *grid),
            multimask_output=False,
        )
        torch.testing.assert_close(logits[own], sam_logits[:, 0], **CLOSE)
        torch.testing.assert_close(iou[own], sam_iou[:, 0], **CLOSE)


def test_a_row_of_masks_does_not_depend_on_its_batch() -> None:
    decoder = MaskDecoder(TINY.sam).eval()
    embeddings, prompts = decoder_inputs(phrases=4, images=2)
    image_index = torch.tensor([1, 0, 1, 0])
    logits, iou = decoder(embeddings, prompts, image_index)
    for row, image in enumerate(image_index):
        alone = decoder(embeddings[image][None], prompts[row][None], torch.zeros(1, dtype=torch.long))
        torch.testing.assert_close(logits[row], alone[0][0], **CLOSE)
        torch.testing.assert_close(iou[row], alone[1][0], **CLOSE)
    swapped = decoder(embeddings, prompts, 1 - image_index)[0]
    assert not torch.allclose(swapped, logits, atol=1e-3)


# --- SSP encoder ------------------------------------------------------------------------------------------------------


def ssp_inputs(images: int, phrases: list[str]) -> tuple[torch.Tensor, ...]:
    clip = TINY.clip
    return (
        torch.randn(images, 1 + clip.patches, clip.out_width),
        torch.from_numpy(tokenize(phrases)),
        torch.randn(len(phrases), clip.out_width),
        torch.randn(len(phrases), 77, clip.text_width),
    )


def test_phrase_attention_is_zero_on_padding_and_sums_to_one() -> None:
    adapter = LinguisticAdapter(TINY.clip.text_width, TINY.ssp.width).eval()
    phrases = ["dog", "the second man from the left in a striped shirt", " ".join(["x"] * 74)]
    ids = torch.from_numpy(tokenize(phrases))
    embeddings = torch.randn(3, 77, TINY.clip.text_width)
    words, attention, vector = adapter(embeddings, ids == 0)
    assert (attention[ids == 0] == 0).all()
    assert (attention[ids != 0] > 0).all()
    torch.testing.assert_close(attention.sum(dim=1), torch.ones(3))
    torch.testing.assert_close(vector, (attention[..., None] * words).sum(dim=1), **CLOSE)


def test_prompts_of_a_phrase_do_not_depend_on_its_batch() -> None:
    generator = SspPromptGenerator(TINY).eval()
    phrases = ["dog", "the red cat on the left", "a man", "somebody"]
    clip_tokens, ids, text, words = ssp_inputs(2, phrases)
    image_index = torch.tensor([1, 0, 0, 1])
    together = generator(clip_tokens, ids, text, words, image_index)
    for row, image in enumerate(image_index):
        one = slice(row, row + 1)
        alone = generator(clip_tokens[image][None], ids[one], text[one], words[one], torch.zeros(1, dtype=torch.long))
        for name, value in alone._asdict().items():
            torch.testing.assert_close(getattr(together, name)[one], value, **CLOSE, msg=name)
    other = generator(clip_tokens, ids, text, words, 1 - image_index)
    assert not torch.allclose(other.prompt_tokens, together.prompt_tokens, atol=1e-3)


def test_prompts_have_their_ranges() -> None:
    generator = SspPromptGenerator(TINY).eval()
    prompts = generator(*ssp_inputs(1, ["dog", "cat"]), torch.zeros(2, dtype=torch.long))
    assert prompts.prompt_tokens.shape == (2, TINY.ssp.prompt_tokens, TINY.sam.out_channels)
    assert ((prompts.box_cxcywh_norm > 0) & (prompts.box_cxcywh_norm < 1)).all()
    assert ((prompts.spatial_attention > 0) & (prompts.spatial_attention <= 1)).all()  # scale 1 at the start
    assert prompts.similarity.shape == (2, TINY.clip.patches)


def test_similarity_is_of_tokens_normalised_over_tokens() -> None:
    generator = SspPromptGenerator(TINY).eval()
    clip_tokens, ids, text, words = ssp_inputs(1, ["dog"])
    prompts = generator(clip_tokens, ids, text, words, torch.zeros(1, dtype=torch.long))
    tokens, phrase = clip_tokens[0].double().numpy(), text[0].double().numpy()
    expected = (tokens / np.sqrt((tokens**2).sum(axis=0)))[1:] @ (phrase / np.sqrt((phrase**2).sum()))
    np.testing.assert_allclose(prompts.similarity[0].numpy(), expected, atol=1e-5)


def test_patches_read_words_as_multi_head_attention_does() -> None:
    torch.manual_seed(0)
    attention, after = nn.MultiheadAttention(32, 4, batch_first=True).double(), nn.Linear(32, 32).double()
    nn.init.normal_(attention.in_proj_bias)
    nn.init.normal_(attention.out_proj.bias)
    patches, words = torch.randn(3, 50, 32).double(), torch.randn(3, 7, 32).double()
    is_padding = torch.arange(7) >= torch.tensor([[7], [1], [4]])
    plain, _ = attention(patches, words, words, key_padding_mask=is_padding)
    torch.testing.assert_close(read_words(attention, patches, words, is_padding, after), after(plain))


def test_padding_of_a_phrase_is_not_attended_to() -> None:
    """Only the GRU reads the padded positions, so without it they change nothing."""
    visual = SspPromptGenerator(TINY).eval().visual
    patches, similarity = torch.randn(1, 9, TINY.clip.out_width), torch.rand(1, 9)
    words = torch.randn(1, 77, TINY.ssp.width)
    is_padding = torch.arange(77)[None] > 5
    fused, attention = visual(patches, similarity, torch.tensor([0]), words, is_padding)
    words[:, 6:] = 99
    again = visual(patches, similarity, torch.tensor([0]), words, is_padding)
    torch.testing.assert_close(again, (fused, attention))


# --- the whole --------------------------------------------------------------------------------------------------------


def test_the_whole_model_is_the_chain_of_its_stages(model: SspSam) -> None:
    random = np.random.default_rng(0)
    images = [Image.fromarray(random.integers(0, 256, (h, w, 3), dtype=np.uint8)) for h, w in ((40, 60), (70, 30))]
    prepared = [prepare(image, TINY) for image in images]
    sam_images, clip_images = (
        torch.from_numpy(np.stack([getattr(p, name) for p in prepared])) for name in ("sam_image", "clip_image")
    )
    geometry = torch.from_numpy(np.stack([p.geometry.to_array() for p in prepared]))
    ids = torch.from_numpy(tokenize(["dog", "the cat", "a man on the left"]))
    image_index = torch.tensor([1, 0, 1])

    output = model(sam_images, clip_images, geometry, ids, image_index)

    for row, image in enumerate(image_index):
        one, zero = slice(int(image), int(image) + 1), torch.zeros(1, dtype=torch.long)
        clip_tokens = model.clip_image_encoder(clip_images[one], geometry[one, 2], geometry[one, 3])
        text, words = model.text_encoder(ids[row : row + 1])
        prompts = model.ssp_prompt_generator(clip_tokens, ids[row : row + 1], text, words, zero)
        embedding = model.sam_image_encoder(sam_images[one], geometry[one, 1])
        logits, iou = model.mask_decoder(embedding, prompts.prompt_tokens, zero)
        torch.testing.assert_close(output.mask_logits[row], logits[0], atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(output.iou[row], iou[0], atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(output.prompts.box_cxcywh_norm[row], prompts.box_cxcywh_norm[0], **CLOSE)


def test_the_children_are_the_stages(model: SspSam) -> None:
    assert [name for name, _ in model.named_children()] == list(STAGES)
