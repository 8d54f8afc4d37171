"""What is trained: the model, and the few parameters that only training uses."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ssp_sam.config import Preset
from ssp_sam.data.standing import TRAITS
from ssp_sam.data.wording import RELATIONS
from ssp_sam.errors import InvalidArgumentError
from ssp_sam.modeling.ssp_sam import STAGES, SspSam
from ssp_sam.training.word_table import IN_EVERY_PHRASE, tokens_of_scenes

# What a phase can train.
MODULES = (*STAGES, "similarity_head", "corner_prompts", "trait_head", "relation_head")


def module_of(name: str) -> str:
    """Return the module of a name that a phase can train: a module's own, or after a dot that of a part of it."""
    return name.partition(".")[0]


class SimilarityHead(nn.Module):
    """Turns similarities of patches and phrase into logits of "this patch belongs to it"."""

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(20.0).log())
        self.bias = nn.Parameter(torch.tensor(-3.0))  # most patches belong to no phrase

    def forward(self, similarity: Tensor) -> Tensor:
        """Map (P, N) to (P, N)."""
        return similarity.float() * self.log_scale.exp() + self.bias


class TraitHead(nn.Module):
    """Reads from what CLIP says of a patch how the thing there stands among others: logits of `TRAITS`."""

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        self.patches = preset.clip.patches
        self.read = nn.Linear(preset.clip.out_width, len(TRAITS))

    def forward(self, patches: Tensor) -> Tensor:
        """Map patches (M, C), normalised over the image's patches, to (M, `TRAITS`)."""
        logits: Tensor = self.read(patches * self.patches**0.5)  # a channel's mean square is 1
        return logits.float()


class RelationHead(nn.Module):
    """Reads from what CLIP says of a patch how the thing there lies to others: logits of `RELATIONS` to nouns."""

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        self.patches, width = preset.clip.patches, preset.clip.out_width
        self.read = nn.Linear(width, len(RELATIONS) * width)
        self.bias = nn.Parameter(torch.zeros(len(RELATIONS)))

    def forward(self, patches: Tensor, nouns: Tensor) -> Tensor:
        """Map patches (M, C), normalised over the image's patches, and nouns' unit vectors (K, C) to (M, R, K).

        Linear in the patches, as the similarity with a phrase is: what is read here, a phrase can ask for.
        """
        asked = self.read(patches * self.patches**0.5).unflatten(1, (len(RELATIONS), -1))  # (M, R, C)
        logits: Tensor = (asked @ nouns.T).float() + self.bias[:, None]
        return logits


class CornerPrompts(nn.Module):
    """Turns a box into two prompt tokens for the mask decoder, as SAM's own prompt encoder does."""

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        self.corner = nn.Embedding(2, preset.sam.out_channels)

    def forward(self, position: nn.Module, corners_xy_norm: Tensor) -> Tensor:
        """Return prompt tokens (P, 2, D).

        position: the mask decoder's `pe_layer`; corners_xy_norm: (P, 2, 2), top left and bottom right in 0..1.
        """
        with torch.autocast(corners_xy_norm.device.type, enabled=False):  # 16 bits are too few for a position
            encoded: Tensor = position.forward_with_coords(corners_xy_norm, (1, 1))  # type: ignore[operator]
        return encoded + self.corner.weight


class Trainee(nn.Module):
    """The model of a preset with its training-only parameters."""

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        self.preset = preset
        self.model = SspSam(preset)
        self.similarity_head = SimilarityHead()
        self.corner_prompts = CornerPrompts(preset)
        self.trait_head = TraitHead(preset)
        self.relation_head = RelationHead(preset)

    def part(self, name: str) -> nn.Module:
        """Return what a configuration calls `name`: one of `MODULES` or, after a dot, a part of it.

        Raises `InvalidArgumentError` if there is no such part.
        """
        root = self.model if module_of(name) in STAGES else self
        try:
            return root.get_submodule(name)
        except AttributeError as error:
            raise InvalidArgumentError(f"preset {self.preset.name!r} has no {name} to train: {error}") from error

    def train_only(self, names: Iterable[str]) -> None:
        """Freeze every parameter but those of these modules."""
        self.requires_grad_(False)
        for name in names:
            self.part(name).requires_grad_(True)


@torch.no_grad()
def draw_weights(trainee: Trainee) -> None:
    """Make fresh weights fit for training from nothing, where the layers' own defaults are not.

    The prompt generator is post-norm and reads positions only through its queries and keys: positions that are small
    beside the patches' content are never found. So they start as 2-D sinusoids with an amplitude of 1.
    """
    generator, clip = trainee.model.ssp_prompt_generator.generator, trainee.model.clip_image_encoder
    grid = trainee.preset.clip.grid
    own = generator.reg_token.num_embeddings + generator.prompt_token.num_embeddings
    nn.init.normal_(generator.reg_token.weight, std=0.5)
    nn.init.normal_(generator.prompt_token.weight, std=0.5)
    nn.init.normal_(generator.position.weight, std=0.5)
    generator.position.weight[own:] = sinusoids(grid, generator.position.embedding_dim)
    clip.positional_embedding[1:] = 0.3 * sinusoids(grid, clip.positional_embedding.shape[1])
    _draw_words(trainee.model.text_encoder.tower.embeddings.token_embedding.weight)


def _draw_words(table: Tensor) -> None:
    """Fill the token table (49408, T): words of scenes at random, everything else with zeros.

    Phrases of different words then differ from the start, in as many directions as there are words. Where all begin
    alike (small weights, or a large end token), text and image find one direction after the other, which takes ages.
    A word that training never shows says nothing, rather than something at random.
    """
    table.zero_()
    ids = sorted(set(tokens_of_scenes()) - set(IN_EVERY_PHRASE))
    table[ids] = torch.randn(len(ids), table.shape[1])


def sinusoids(grid: int, width: int) -> Tensor:
    """Return (grid * grid, width): the first half of the channels tells the row, the second the column; amplitude 1."""
    place = (torch.arange(grid) + 0.5) / grid
    frequency = torch.pi * 2.0 ** torch.linspace(0, torch.tensor(float(grid)).log2().item(), width // 4)
    angle = place[:, None] * frequency  # (grid, width / 4)
    axis = torch.cat([angle.sin(), angle.cos()], dim=1)  # (grid, width / 2)
    rows, cols = axis[:, None].expand(-1, grid, -1), axis[None].expand(grid, -1, -1)
    return torch.cat([rows, cols], dim=2).flatten(0, 1)
