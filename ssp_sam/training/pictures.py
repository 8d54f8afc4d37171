"""What a run looks like: its losses and held-out figures as curves, and a sheet of examples."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont

from ssp_sam.data.contact_sheet import contact_sheet
from ssp_sam.evaluation.thumbnails import draw
from ssp_sam.training import losses
from ssp_sam.training.batches import Batch
from ssp_sam.training.objectives import prompted_masks, prompts_of
from ssp_sam.training.trainee import Trainee

Record = Mapping[str, Any]

EXAMPLES = 16
_COLUMNS = 4
_CAPTION_PX = 44
_FONT_PX = 17


def draw_curves(log: Path, out: Path) -> None:
    """Draw the log of a run, JSON lines as `Progress` writes them: a column a phase, losses above, figures below."""
    from matplotlib.figure import Figure  # without pyplot: nothing global, no display

    records = list(_records(log))
    phases = list(dict.fromkeys(record["phase"] for record in records if record["event"] == "phase"))
    figure = Figure(figsize=(4.2 * len(phases), 6.4), layout="constrained")
    axes = figure.subplots(2, len(phases), squeeze=False)
    for column, phase in enumerate(phases):
        own = [record for record in records if record["phase"] == phase]
        rows = (("progress", "losses", "mean loss"), ("validation", "figures", "held out"))
        for axis, (event, key, label) in zip(axes[:, column], rows, strict=True):
            curves = _curves([record for record in own if record["event"] == event], key)
            for name, (steps, values) in curves.items():
                axis.plot(steps, values, label=name, marker="o" if len(steps) < 30 else None, markersize=3)
            axis.set_xlim(left=0)
            axis.set_ylim(bottom=0)
            axis.grid(alpha=0.3)
            axis.set_ylabel(label)
            if curves:
                axis.legend(fontsize="x-small")
        axes[0, column].set_title(phase)
        axes[1, column].set_xlabel("step")
    figure.savefig(out, dpi=110)


def _records(log: Path) -> Iterator[Record]:
    """Yield the records of a log but for lines that a killed process left unfinished: no reason to end a run."""
    for line in log.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            yield json.loads(line)


def _curves(records: Sequence[Record], key: str) -> dict[str, tuple[list[int], list[float]]]:
    """Return {name: (steps, values)}; a step that was done again after a crash counts as it was the last time."""
    by_name: dict[str, dict[int, float]] = {}
    for record in records:
        for name, value in record[key].items():
            by_name.setdefault(name, {})[record["step"]] = value
    return {name: (sorted(values), [values[step] for step in sorted(values)]) for name, values in by_name.items()}


@torch.no_grad()
def draw_examples(trainee: Trainee, batch: Batch, out: Path) -> None:
    """Draw the first phrases of a batch with the truth as an outline and the answer as a fill.

    Raises ValueError if the batch has no pictures, only what SAM's encoder made of them earlier.
    """
    if batch.sam_image is None:
        raise ValueError("the batch holds SAM's embeddings, no pictures")
    logits, iou = prompted_masks(trainee, batch, prompts_of(trainee, batch))
    panels = _panels(batch, batch.sam_image, logits > 0, iou.float().tolist())
    contact_sheet(panels, _COLUMNS).save(out)


def _panels(
    batch: Batch, images_tensor: torch.Tensor, predicted: torch.Tensor, scores: Sequence[float]
) -> list[Image.Image]:
    images = images_tensor.permute(0, 2, 3, 1).cpu().numpy()
    truth = batch.truth_mask > 127
    overlap = losses.mask_iou(predicted, truth).tolist()
    panels = []
    for number, index in enumerate(batch.image_index.tolist()[:EXAMPLES]):
        picture = draw(Image.fromarray(images[index]), truth[number].cpu().numpy(), predicted[number].cpu().numpy())
        panel = Image.new("RGB", (picture.width, picture.height + _CAPTION_PX), "white")
        panel.paste(picture)
        draw_on, font = ImageDraw.Draw(panel), ImageFont.load_default(_FONT_PX)
        if batch.absent[number]:
            found = "not there; " + ("takes something" if predicted[number].any() else "found nothing")
        else:
            found = f"IoU {overlap[number]:.2f}"
        draw_on.text((2, picture.height + 2), batch.phrases[number], "black", font=font)
        draw_on.text((2, picture.height + 2 + _FONT_PX), f"{found}; score {scores[number]:.2f}", "dimgray", font=font)
        panels.append(panel)
    return panels
