"""The Semantic-Spatial Prompt encoder: from CLIP features of image and phrase to prompts for SAM's mask decoder."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssp_sam.config import Preset
from ssp_sam.modeling.layers import Mlp


class Prompts(NamedTuple):
    """What the SSP encoder says about each of P phrases.

    prompt_tokens: (P, Q, D); box_cxcywh_norm: (P, 4) in 0..1 of CLIP's padded square; phrase_attention: (P, L), sums
    to 1; spatial_attention: (P, N); similarity: (P, N) cosine of patches and phrase before scaling.
    """

    prompt_tokens: Tensor
    box_cxcywh_norm: Tensor
    phrase_attention: Tensor
    spatial_attention: Tensor
    similarity: Tensor


class LinguisticAdapter(nn.Module):
    """Weighs the words of a phrase."""

    def __init__(self, text_width: int, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(text_width, width)
        self.gru = nn.GRU(width, width, batch_first=True, bidirectional=True)
        self.score = nn.Linear(2 * width, 1)

    def forward(self, word_embeddings: Tensor, is_padding: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return words (P, L, W), phrase_attention (P, L) and phrase vector (P, W)."""
        words = self.project(word_embeddings)
        context, _ = self.gru(words)  # over all L positions, padding included: the weights were trained so
        attention = self.score(context).squeeze(-1).float().softmax(dim=1).masked_fill(is_padding, 0)
        attention = attention / attention.sum(dim=1, keepdim=True)
        return words, attention, torch.einsum("pl,plw->pw", attention.to(words.dtype), words)


class VisualAdapter(nn.Module):
    """Finds the patches that the phrase points at."""

    def __init__(self, clip_width: int, width: int, heads: int) -> None:
        super().__init__()
        self.project = Mlp(clip_width, width, width, layers=3)
        self.cross_attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.text_side = nn.Linear(width, width)
        self.image_side = nn.Linear(width, width)
        self.scale = nn.Parameter(torch.ones(1))
        self.sigma = nn.Parameter(torch.full((1,), 0.5))
        self.norm = nn.LayerNorm(width)

    def forward(
        self, patches: Tensor, similarity_map: Tensor, image_index: Tensor, words: Tensor, is_padding: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return fused patches (P, N, W) and spatial_attention (P, N).

        patches: (B, N, C); similarity_map: (P, N) in 0..1; image_index: int (P,); words: (P, L, W);
        is_padding: bool (P, L).
        """
        # The similarity scales a patch as a whole, so the first layer's product is that of the image for every phrase.
        first = self.project.first
        product = F.linear(patches, first.weight)[image_index]  # (P, N, W)
        query = self.project.after_first(product * similarity_map[..., None] + first.bias)
        said = read_words(self.cross_attention, query, words, is_padding, self.text_side)
        cosine = _cosine(self.image_side(query).float(), said.float())
        attention = self.scale * torch.exp(-((1 - cosine) ** 2) / (2 * self.sigma**2))
        return self.norm(query) * attention[..., None], attention


def read_words(
    attention: nn.MultiheadAttention, patches: Tensor, words: Tensor, is_padding: Tensor, after: nn.Linear
) -> Tensor:
    """Return (P, N, W), `after` of what `attention` answers to patches (P, N, W) about words (P, L, W).

    is_padding: bool (P, L), the words that nobody sees. Words are few and patches many: the projections of queries and
    answers, which are linear, are applied to the words instead.
    """
    heads, width = attention.num_heads, attention.embed_dim
    (to_query, *to_word), (query_bias, *word_bias) = attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3)
    keys, values = (
        F.linear(words, weight, bias).view(*words.shape[:2], heads, -1).transpose(1, 2)
        for weight, bias in zip(to_word, word_bias, strict=True)
    )  # (P, H, L, W / H)
    keys = keys * (width // heads) ** -0.5
    asked = (keys @ to_query.view(heads, -1, width)).flatten(1, 2)  # (P, H L, W)
    asked_of_all = keys @ query_bias.view(heads, -1, 1)  # (P, H, L, 1)
    unseen = torch.where(is_padding, -torch.inf, 0.0)[:, None]  # (P, 1, L)
    scores = patches @ asked.transpose(1, 2)  # (P, N, H L)
    scores = scores.unflatten(2, (heads, -1)) + (asked_of_all[..., 0] + unseen)[:, None]
    out = (after.weight @ attention.out_proj.weight).view(width, heads, -1).permute(1, 2, 0)  # (H, W / H, W)
    answers = (values @ out).flatten(1, 2)  # (P, H L, W)
    said: Tensor = scores.softmax(dim=3).flatten(2) @ answers + after(attention.out_proj.bias)
    return said


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    """Return the cosine over the last axis, without normalised copies of the vectors."""
    norms = torch.linalg.vector_norm(a, dim=-1) * torch.linalg.vector_norm(b, dim=-1)
    cosine: Tensor = (a * b).sum(dim=-1) / norms.clamp_min(1e-8)
    return cosine


class PromptLayer(nn.Module):
    """A post-norm transformer encoder layer; positions go to query and key, not to value."""

    def __init__(self, width: int, heads: int, ffn: int) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.linear1 = nn.Linear(width, ffn)
        self.linear2 = nn.Linear(ffn, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)

    def forward(self, x: Tensor, position: Tensor, rows: int | None = None) -> Tensor:
        """Map (P, 1+Q+N, D) to the same shape, or to its first `rows` tokens; position: (1+Q+N, D)."""
        attended = attend(self.self_attn, x[:, :rows], x, x, positions=(position[:rows], position))
        x = self.norm1(x[:, :rows] + attended)
        out: Tensor = self.norm2(x + self.linear2(F.relu(self.linear1(x), inplace=True)))
        return out


def attend(
    attention: nn.MultiheadAttention,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    positions: tuple[Tensor, Tensor],
) -> Tensor:
    """Return what `attention` answers, (P, T, D) of queries (P, T, D) to keys and values (P, S, D).

    positions: (T, D) and (S, D), added to queries and keys; they are the same for all phrases, so their projections are
    added once instead of projecting sums.
    """
    width, heads = attention.embed_dim, attention.num_heads
    weights, biases = attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3)
    q, k, v = (F.linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases, strict=True))
    q, k = q + F.linear(positions[0], weights[0]), k + F.linear(positions[1], weights[1])
    q, k, v = (x.view(*x.shape[:2], heads, width // heads).transpose(1, 2) for x in (q, k, v))
    attended = F.scaled_dot_product_attention(q, k, v)
    out: Tensor = attention.out_proj(attended.transpose(1, 2).flatten(2))
    return out


class PromptGenerator(nn.Module):
    """Lets a regression token and Q prompt tokens read the fused patches."""

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        ssp, width = preset.ssp, preset.sam.out_channels
        self.reg_token = nn.Embedding(1, width)
        self.prompt_token = nn.Embedding(ssp.prompt_tokens, width)
        self.position = nn.Embedding(1 + ssp.prompt_tokens + preset.clip.patches, width)
        self.layers = nn.ModuleList(PromptLayer(width, ssp.heads, ssp.ffn) for _ in range(ssp.layers))
        self.norm = nn.LayerNorm(width)
        self.bbox_embed = Mlp(width, width, 4, layers=3)

    def forward(self, fused: Tensor) -> tuple[Tensor, Tensor]:
        """Return prompt_tokens (P, Q, D) and box_cxcywh_norm (P, 4) of fused patches (P, N, D)."""
        own = torch.cat([self.reg_token.weight, self.prompt_token.weight])  # (1 + Q, D)
        x = torch.cat([own.expand(fused.shape[0], -1, -1).to(fused.dtype), fused], dim=1)  # (P, 1 + Q + N, D)
        *earlier, last = self.layers
        for layer in earlier:
            x = layer(x, self.position.weight)
        x = self.norm(last(x, self.position.weight, rows=len(own)))  # nobody reads what the patches become
        return x[:, 1:], self.bbox_embed(x[:, 0]).sigmoid()


class SspPromptGenerator(nn.Module):
    """Triton stage `ssp_prompt_generator`."""

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        ssp, clip = preset.ssp, preset.clip
        self.linguistic = LinguisticAdapter(clip.text_width, ssp.width)
        self.visual = VisualAdapter(clip.out_width, ssp.width, ssp.attention_heads)
        self.fuse = nn.Linear(ssp.width, preset.sam.out_channels)
        self.generator = PromptGenerator(preset)

    def forward(
        self,
        clip_tokens: Tensor,
        token_ids: Tensor,
        text_embedding: Tensor,
        word_embeddings: Tensor,
        image_index: Tensor,
    ) -> Prompts:
        """Write the prompts of P phrases over B images.

        clip_tokens: (B, 1+N, C); token_ids: int (P, L), 0 is padding; text_embedding: (P, C); word_embeddings: (P, L,
        T); image_index: int (P,), the image of each phrase.
        """
        patches, similarity, similarity_map = compare(clip_tokens, text_embedding, image_index)
        return Prompts(*self.write(patches, similarity_map, image_index, token_ids, word_embeddings), similarity)

    def write(
        self, patches: Tensor, similarity_map: Tensor, image_index: Tensor, token_ids: Tensor, word_embeddings: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return prompt_tokens, box_cxcywh_norm, phrase_attention and spatial_attention of what `compare` answers."""
        is_padding = token_ids == 0  # as in the release, though 0 is the token "!" as well
        words, phrase_attention, phrase_vector = self.linguistic(word_embeddings, is_padding)
        fused, spatial_attention = self.visual(patches, similarity_map, image_index, words, is_padding)
        fused = self.fuse(fused.tanh() * phrase_vector.tanh()[:, None])
        prompt_tokens, box = self.generator(fused)
        return prompt_tokens, box, phrase_attention, spatial_attention


def compare(clip_tokens: Tensor, text_embedding: Tensor, image_index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return patches (B, N, C), their cosine with each phrase (P, N), and the same stretched to 0..1.

    For float32: a phrase's cosines lie close to one another, and what remains of 16 bits after stretching moves masks.
    """
    # Over the token axis, not over channels: a slip of the release that its weights depend on.
    patches = F.normalize(clip_tokens.float(), dim=1)[:, 1:]
    phrase = F.normalize(text_embedding.float(), dim=-1)
    similarity = (patches[image_index] @ phrase[:, :, None]).squeeze(2)
    low, high = similarity.aminmax(dim=1, keepdim=True)
    return patches, similarity, (similarity - low) / (high - low)
