"""Every layout in which CLIP is published gives the same stages; what does not fit is named with its file."""

from __future__ import annotations

import json
import os
import pickle
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel

from ssp_sam.checkpoint import load_published, split_published
from ssp_sam.clip_checkpoint import load_clip, load_published_stages
from ssp_sam.config import Preset, get_preset
from ssp_sam.errors import InvalidArgumentError
from ssp_sam.torchscript import is_torchscript, load_torchscript_tensors

State = dict[str, Tensor]


class Node(nn.Module):
    """A module of any shape, so that an archive can be made of any dotted names."""

    def __init__(self, state: State) -> None:
        super().__init__()
        children: dict[str, State] = {}
        for name, value in state.items():
            head, _, rest = name.partition(".")
            if rest:
                children.setdefault(head, {})[rest] = value
            elif value.is_floating_point():
                setattr(self, head, nn.Parameter(value, requires_grad=False))
            else:
                self.register_buffer(head, value)
        for head, child in children.items():
            self.add_module(head, Node(child))
        if "attn" in children:
            self.attn_mask = torch.zeros(2, 2)  # a plain attribute, as in OpenAI's text tower

    def forward(self, x: Tensor) -> Tensor:
        return x


@pytest.fixture(scope="module")
def published(golden_checkpoint: Path) -> tuple[Preset, State]:
    return get_preset(golden_checkpoint.stem), load_published(golden_checkpoint)


@pytest.fixture
def clip_file(tmp_path: Path) -> Iterator[Path]:
    """Where a test may write CLIP; removed at once, it has a hundred megabytes."""
    path = tmp_path / "clip.pt"
    yield path
    path.unlink(missing_ok=True)


@pytest.fixture
def small_clip() -> tuple[Preset, State]:
    """CLIP of `mini224` in OpenAI's layout, without memory behind its one large tensor."""
    keys = json.loads((Path(__file__).parents[1] / "goldens" / "mini224_keys.json").read_text())
    state = {key: shape for key, (shape, _) in keys.items() if key.startswith("encoder.")}
    return get_preset("mini224"), {key.removeprefix("encoder."): torch.zeros(()).expand(s) for key, s in state.items()}


def openai_layout(state: State) -> State:
    sizes = {name: torch.tensor(1) for name in ("input_resolution", "context_length", "vocab_size")}
    return {k.removeprefix("encoder."): v for k, v in state.items() if k.startswith("encoder.")} | sizes


def hugging_face_layout(openai: State) -> State:
    """Rename by `transformers`' own names, which a test compares with a CLIPModel."""
    renamed: State = {
        "logit_scale": openai["logit_scale"],
        "text_projection.weight": openai["text_projection"].T,
        "visual_projection.weight": openai["visual.proj"].T,
        "text_model.embeddings.token_embedding.weight": openai["token_embedding.weight"],
        "text_model.embeddings.position_embedding.weight": openai["positional_embedding"],
        "text_model.embeddings.position_ids": torch.arange(77)[None],
        "vision_model.embeddings.class_embedding": openai["visual.class_embedding"],
        "vision_model.embeddings.patch_embedding.weight": openai["visual.conv1.weight"],
        "vision_model.embeddings.position_embedding.weight": openai["visual.positional_embedding"],
        "vision_model.embeddings.position_ids": torch.arange(5)[None],
    }
    norms = {
        "ln_final": "text_model.final_layer_norm",
        "visual.ln_pre": "vision_model.pre_layrnorm",
        "visual.ln_post": "vision_model.post_layernorm",
    }
    inner = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
    for key, value in openai.items():
        name, _, kind = key.rpartition(".")
        if name in norms:
            renamed[f"{norms[name]}.{kind}"] = value
        match = re.fullmatch(r"(visual\.)?transformer\.resblocks\.(\d+)\.(.+)", key)
        if match:
            layer = f"{'vision' if match[1] else 'text'}_model.encoder.layers.{match[2]}."
            part, _, kind = match[3].rpartition(".")
            if match[3].startswith("attn.in_proj_"):
                for letter, third in zip("qkv", value.chunk(3), strict=True):
                    renamed[f"{layer}self_attn.{letter}_proj.{match[3].removeprefix('attn.in_proj_')}"] = third
            elif part == "attn.out_proj":
                renamed[f"{layer}self_attn.out_proj.{kind}"] = value
            else:
                renamed[f"{layer}{inner[part]}.{kind}"] = value
    return renamed


def hugging_face_config(preset: Preset) -> dict[str, Any]:
    clip = preset.clip
    return {
        "model_type": "clip",
        "projection_dim": clip.out_width,
        "text_config_dict": None,
        "text_config": {
            "hidden_size": clip.text_width,
            "intermediate_size": 4 * clip.text_width,
            "num_hidden_layers": clip.text_layers,
            "num_attention_heads": clip.text_heads,
            "hidden_act": "quick_gelu",
        },
        "vision_config": {
            "hidden_size": clip.width,
            "intermediate_size": 4 * clip.width,
            "num_hidden_layers": clip.layers,
            "num_attention_heads": clip.heads,
            "image_size": clip.image_side_px,
            "patch_size": clip.patch_px,
            "hidden_act": "quick_gelu",
        },
    }


def write_folder(folder: Path, state: State, config: dict[str, Any], weights: str = "model.safetensors") -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    if weights.endswith(".safetensors"):
        save_file({key: value.contiguous() for key, value in state.items()}, folder / weights)
    else:
        torch.save(state, folder / weights)
    return folder


def assert_same(stages: dict[str, State], expected: dict[str, State]) -> None:
    assert stages.keys() == expected.keys()
    for stage, parameters in expected.items():
        assert stages[stage].keys() == parameters.keys()
        for key, value in parameters.items():
            assert torch.equal(stages[stage][key], value), f"{stage} {key}"


def stages_with(published: tuple[Preset, State], clip: Path) -> dict[str, State]:
    preset, state = published
    without = {key: value for key, value in state.items() if not key.startswith("encoder.")}
    return split_published({**without, **load_clip(clip, preset.clip)}, preset, "it")


@pytest.mark.parametrize("prefix", ["", "module."])
def test_openais_state_dict(published: tuple[Preset, State], clip_file: Path, prefix: str) -> None:
    preset, state = published
    torch.save({prefix + key: value for key, value in openai_layout(state).items()}, clip_file)
    assert_same(stages_with(published, clip_file), split_published(state, preset, "it"))


def test_torchs_format_of_before_2020_loads(tmp_path: Path) -> None:
    torch.save({"visual.proj": torch.arange(4.0)}, tmp_path / "clip.pt", _use_new_zipfile_serialization=False)
    loaded = load_clip(tmp_path / "clip.pt", get_preset("mini224").clip)
    assert torch.equal(loaded["encoder.visual.proj"], torch.arange(4.0))


@pytest.mark.filterwarnings("ignore:.*torch.jit:")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_openais_torchscript_archive(published: tuple[Preset, State], clip_file: Path, dtype: torch.dtype) -> None:
    preset, state = published
    half = {k: v.to(dtype) if k.startswith("encoder.") and v.is_floating_point() else v for k, v in state.items()}
    torch.jit.script(Node(openai_layout(half))).save(str(clip_file))
    assert is_torchscript(clip_file)
    assert_same(stages_with(published, clip_file), split_published(half, preset, "it"))


@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
def test_hugging_faces_folder(published: tuple[Preset, State], tmp_path: Path, weights: str) -> None:
    preset, state = published
    layout = hugging_face_layout(openai_layout(state))
    folder = write_folder(tmp_path / "clip", layout, hugging_face_config(preset), weights)
    assert_same(stages_with(published, folder), split_published(state, preset, "it"))
    (folder / weights).unlink()


def test_the_names_of_that_folder_are_those_of_transformers(small_clip: tuple[Preset, State]) -> None:
    preset, state = small_clip
    with torch.device("meta"):
        model = CLIPModel(CLIPConfig(**hugging_face_config(preset)))
    ours = {key: value.shape for key, value in hugging_face_layout(state).items() if "position_ids" not in key}
    assert ours == {key: value.shape for key, value in model.state_dict().items()}


def test_clips_own_file_replaces_that_of_the_checkpoint(golden_checkpoint: Path, tmp_path: Path) -> None:
    preset, state = get_preset(golden_checkpoint.stem), load_published(golden_checkpoint)
    without = {key: value for key, value in state.items() if not key.startswith("encoder.")}
    torch.save({"model": {f"module.{key}": value for key, value in without.items()}}, tmp_path / "ddp.pth")
    other = {k: v * 2 if v.is_floating_point() else v for k, v in openai_layout(state).items()}
    torch.save(other, tmp_path / "clip.pt")

    with pytest.raises(InvalidArgumentError, match=r"ddp\.pth holds no CLIP"):
        load_published_stages(tmp_path / "ddp.pth", preset)
    for checkpoint in (tmp_path / "ddp.pth", golden_checkpoint):
        stages = load_published_stages(checkpoint, preset, tmp_path / "clip.pt")
        assert torch.equal(stages["clip_image_encoder"]["conv1.weight"], 2 * state["encoder.visual.conv1.weight"])
        assert torch.equal(stages["ssp_prompt_generator"]["fuse.weight"], state["mlp.weight"])
    for path in (tmp_path / "ddp.pth", tmp_path / "clip.pt"):
        path.unlink()


def test_what_does_not_fit_is_named_with_both_files(golden_checkpoint: Path, tmp_path: Path) -> None:
    preset = get_preset(golden_checkpoint.stem)
    torch.save({"visual.proj": torch.zeros(2, 3), "visual.extra.weight": torch.zeros(1)}, tmp_path / "clip.pt")
    with pytest.raises(InvalidArgumentError) as caught:
        load_published_stages(golden_checkpoint, preset, tmp_path / "clip.pt")
    message = str(caught.value)
    assert str(golden_checkpoint) in message and str(tmp_path / "clip.pt") in message
    assert "proj (2, 3) instead of" in message
    assert "unexpected in clip_image_encoder: extra.weight" in message
    assert "missing in text_encoder" in message


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"text_model.extra": torch.zeros(1)}, "unexpected text_model.extra"),
        ({"text_model.encoder.layers.0.self_attn.q_proj.bias": None}, "transformer.resblocks.0.attn.in_proj_bias"),
        ({"vision_model.encoder.layers.1.self_attn.k_proj.bias": torch.zeros(3)}, r"shapes \[\(3,\), \(128,\)\]"),
    ],
)
def test_a_folder_that_does_not_fit_is_named(
    small_clip: tuple[Preset, State], tmp_path: Path, change: dict[str, Tensor | None], named: str
) -> None:
    preset, state = small_clip
    layout = {key: value for key, value in (hugging_face_layout(state) | change).items() if value is not None}
    folder = write_folder(tmp_path / "clip", layout, hugging_face_config(preset), "pytorch_model.bin")
    with pytest.raises(InvalidArgumentError, match=rf"pytorch_model\.bin does not fit.*{named}"):
        load_clip(folder, preset.clip)


@pytest.mark.parametrize(
    ("tower", "name", "value"),
    [
        ("text_config", "hidden_act", "gelu"),
        ("vision_config", "hidden_act", "gelu"),
        ("text_config", "num_attention_heads", 4),
        ("vision_config", "num_attention_heads", 4),
        ("vision_config", "patch_size", 32),
    ],
)
def test_a_clip_that_computes_something_else_is_refused(
    small_clip: tuple[Preset, State], tmp_path: Path, tower: str, name: str, value: Any
) -> None:
    preset, state = small_clip
    config = hugging_face_config(preset)
    config[tower][name] = value
    folder = write_folder(tmp_path / "clip", hugging_face_layout(state), config, "pytorch_model.bin")
    with pytest.raises(InvalidArgumentError, match=rf"config\.json is of another CLIP: {name}.*{value!r}"):
        load_clip(folder, preset.clip)


@pytest.mark.parametrize(("content", "message"), [(None, "is missing"), ("{", "no configuration of a CLIP")])
def test_a_folder_needs_its_configuration(
    small_clip: tuple[Preset, State], tmp_path: Path, content: str | None, message: str
) -> None:
    preset, state = small_clip
    folder = write_folder(tmp_path / "clip", hugging_face_layout(state), {}, "pytorch_model.bin")
    if content is None:
        (folder / "config.json").unlink()
    else:
        (folder / "config.json").write_text(content)
    with pytest.raises(InvalidArgumentError, match=rf"config\.json.*{message}"):
        load_clip(folder, preset.clip)


def test_an_empty_folder_and_a_damaged_file_are_named(tmp_path: Path) -> None:
    config = get_preset("mini224").clip
    with pytest.raises(InvalidArgumentError, match=r"expected model\.safetensors or pytorch_model\.bin"):
        load_clip(tmp_path, config)
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(InvalidArgumentError, match=r"model\.safetensors is no safetensors file"):
        load_clip(tmp_path, config)
    with pytest.raises(FileNotFoundError, match=r"absent\.pt"):
        load_clip(tmp_path / "absent.pt", config)


class Runs:
    """Pickled, it makes a folder when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def write_archive(path: Path, pickled: bytes, compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        root = "a" * 27  # with it, the first member's content begins at byte 64: torch aligns them all so
        archive.writestr(f"{root}/data/0", bytes(8))
        archive.writestr(f"{root}/data.pkl", pickled)
        archive.writestr(f"{root}/constants.pkl", b"")


def module_pickle(tensor_arguments: str) -> bytes:
    """A module with one attribute `w`, pickled by hand: storage 0 has two float32."""
    storage = "(S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\nI2\ntQ"
    made = f"ctorch._utils\n_rebuild_tensor_v2\n({storage}{tensor_arguments}tR"
    return f"c__torch__\nM\n)\x81}}S'w'\n{made}sb.".encode("latin-1")


def test_an_archives_pickle_runs_nothing(tmp_path: Path) -> None:
    write_archive(tmp_path / "clip.pt", pickle.dumps(Runs(tmp_path / "ran")))
    with pytest.raises(InvalidArgumentError, match=r"clip\.pt.*asks for posix\.mkdir, which is not allowed"):
        load_clip(tmp_path / "clip.pt", get_preset("mini224").clip)
    assert not (tmp_path / "ran").exists()


def test_a_small_archive_is_read(tmp_path: Path) -> None:
    write_archive(tmp_path / "clip.pt", module_pickle("I0\n(I2\nt(I1\nt"))
    assert torch.equal(load_torchscript_tensors(tmp_path / "clip.pt")["w"], torch.zeros(2))


@pytest.mark.parametrize(
    ("pickled", "compression", "message"),
    [
        (module_pickle("I0\n(I3\nt(I1\nt"), zipfile.ZIP_STORED, "beyond its storage"),
        (module_pickle("I1\n(I2\nt(I1\nt"), zipfile.ZIP_STORED, "beyond its storage"),
        (module_pickle("I-1\n(I2\nt(I1\nt"), zipfile.ZIP_STORED, "beyond its storage"),
        (module_pickle("I0\n(I2\nt(I1\nt"), zipfile.ZIP_DEFLATED, "is compressed"),
        (b"I1\n.", zipfile.ZIP_STORED, "no module"),
        (b"", zipfile.ZIP_STORED, "cannot|can be read"),
    ],
)
def test_a_damaged_archive_is_named(tmp_path: Path, pickled: bytes, compression: int, message: str) -> None:
    write_archive(tmp_path / "clip.pt", pickled, compression)
    with pytest.raises(InvalidArgumentError, match=rf"clip\.pt.*({message})"):
        load_torchscript_tensors(tmp_path / "clip.pt")
