from __future__ import annotations

import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModel

from ssp_sam.config import CONTEXT_LENGTH, VOCABULARY_SIZE, get_preset
from ssp_sam.modeling.clip_image import ClipImageEncoder, SurgeryAttention
from ssp_sam.modeling.clip_text import TextEncoder
from ssp_sam.modeling.images import PixelNormalizer
from ssp_sam.modeling.layers import Mlp, QuickGelu
from ssp_sam.tokenizer import tokenize

CLIP = get_preset("tiny").clip


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@torch.inference_mode()
def test_surgery_attention_is_that_of_a_loop() -> None:
    width, heads, d = 12, 3, 4
    layer = SurgeryAttention(width, heads)
    x = torch.randn(2, 5, width)
    ordinary, second = layer(x, with_second_stream=True)
    for image in range(2):
        projected = x[image] @ layer.qkv.weight.T + layer.qkv.bias
        mixed: dict[str, list[torch.Tensor]] = {"ordinary": [], "second": []}
        for head in range(heads):
            q, k, v = (projected[:, n * width + head * d : n * width + (head + 1) * d] for n in range(3))
            mixed["ordinary"].append(((q @ k.T) / d**0.5).softmax(dim=1) @ v)
            mixed["second"].append(((v @ v.T) / d**0.5).softmax(dim=1) @ v)
        for name, got in (("ordinary", ordinary), ("second", second)):
            expected = torch.cat(mixed[name], dim=1) @ layer.proj.weight.T + layer.proj.bias
            torch.testing.assert_close(got[image], expected, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_without_the_second_stream_the_first_is_the_same() -> None:
    layer = SurgeryAttention(8, 2)
    x = torch.randn(1, 4, 8)
    alone, nothing = layer(x, with_second_stream=False)
    assert nothing is None
    torch.testing.assert_close(alone, layer(x, with_second_stream=True)[0])


@torch.inference_mode()
def test_a_row_of_image_tokens_does_not_depend_on_its_batch() -> None:
    encoder = ClipImageEncoder(CLIP).eval()
    side = CLIP.image_side_px
    images = torch.randint(0, 256, (3, 3, side, side), dtype=torch.uint8)
    sizes = torch.tensor([[side, side], [100, side], [side, 30]])
    offsets = torch.tensor([[0, 0], [78, 0], [0, 113]])
    together = encoder(images, sizes, offsets)
    assert together.shape == (3, 1 + CLIP.patches, CLIP.out_width)
    for row in range(3):
        alone = encoder(images[row : row + 1], sizes[row : row + 1], offsets[row : row + 1])
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_pixels_of_the_padding_do_not_count() -> None:
    normalize = PixelNormalizer((100.0, 110.0, 120.0), (50.0, 51.0, 52.0))
    image = torch.randint(0, 256, (1, 3, 9, 9), dtype=torch.uint8)
    size, offset = torch.tensor([[3, 5]]), torch.tensor([[2, 4]])
    out = normalize(image, size, offset)
    for row in range(9):
        for col in range(9):
            inside = 2 <= row < 5 and 4 <= col < 9
            expected = [(float(image[0, c, row, col]) - (100 + 10 * c)) / (50 + c) if inside else 0.0 for c in range(3)]
            assert out[0, :, row, col].tolist() == pytest.approx(expected, abs=1e-6)


@torch.inference_mode()
def test_what_follows_the_end_of_a_phrase_does_not_change_its_vector() -> None:
    encoder = TextEncoder(CLIP).eval()
    ids = torch.from_numpy(tokenize(["the red dog", "a much longer phrase about the cat"]))
    vectors, words = encoder(ids)
    assert vectors.shape == (2, CLIP.out_width)
    assert words.shape == (2, 77, CLIP.text_width)

    changed = ids.clone()
    changed[ids == 0] = 320
    end = int(ids[0].argmax())
    vectors_again, words_again = encoder(changed)
    torch.testing.assert_close(vectors_again, vectors, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(words_again[0, : end + 1], words[0, : end + 1], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(words_again[0, end + 1 :], words[0, end + 1 :], atol=1e-3)


@torch.inference_mode()
def test_words_are_those_of_transformers() -> None:
    encoder = TextEncoder(CLIP).eval()
    theirs = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=VOCABULARY_SIZE,
            hidden_size=CLIP.text_width,
            intermediate_size=4 * CLIP.text_width,
            num_hidden_layers=CLIP.text_layers,
            num_attention_heads=CLIP.text_heads,
            max_position_embeddings=CONTEXT_LENGTH,
            hidden_act="quick_gelu",
        )
    ).eval()
    theirs = getattr(theirs, "text_model", theirs)  # transformers 4 wraps the tower once more than transformers 5
    for parameter in encoder.parameters():
        parameter.add_(0.05 * torch.randn_like(parameter))  # the biases, too
    theirs.load_state_dict(encoder.tower.state_dict())
    ids = torch.from_numpy(tokenize(["the red dog", "a much longer phrase about the cat"]))
    words = encoder(ids)[1]
    assert words.std() > 0.5
    torch.testing.assert_close(words, theirs(input_ids=ids).last_hidden_state, atol=1e-5, rtol=1e-5)


def test_random_parameters_are_drawn_as_clip_draws_them() -> None:
    width, layers = CLIP.text_width, CLIP.text_layers
    parameters = dict(TextEncoder(CLIP).named_parameters())
    assert {name for name, values in parameters.items() if not values.any()} == {n for n in parameters if "bias" in n}
    block = "tower.encoder.layers.0."
    for name, std in (
        ("tower.embeddings.token_embedding.weight", 0.02),
        ("tower.embeddings.position_embedding.weight", 0.01),
        (block + "self_attn.q_proj.weight", width**-0.5),
        (block + "self_attn.out_proj.weight", width**-0.5 * (2 * layers) ** -0.5),
        (block + "mlp.fc1.weight", (2 * width) ** -0.5),
        (block + "mlp.fc2.weight", width**-0.5 * (2 * layers) ** -0.5),
        ("text_projection.weight", width**-0.5),
    ):
        assert parameters[name].std().item() == pytest.approx(std, rel=0.1), name


@torch.inference_mode()
def test_a_phrase_vector_is_the_projected_end_token() -> None:
    encoder = TextEncoder(CLIP).eval()
    ids = torch.from_numpy(tokenize(["the red dog"]))
    vector, words = encoder(ids)
    end = ids[0].tolist().index(49407)
    torch.testing.assert_close(vector[0], encoder.text_projection.weight @ words[0, end])


@torch.inference_mode()
def test_layers() -> None:
    x = torch.randn(4, 6)
    torch.testing.assert_close(QuickGelu()(x), x / (1 + torch.exp(-1.702 * x)))
    mlp = Mlp(6, 7, 2, layers=3)
    a, b, c = mlp.layers
    torch.testing.assert_close(mlp(x), c(b(a(x).clamp(min=0)).clamp(min=0)))
    assert mlp(-x).min() < 0  # no ReLU after the last
