from pathlib import Path
from typing import Any

import pytest

from ssp_sam.training.config import ConfigError, load_config, parse_config

CONFIGS = Path(__file__).parents[3] / "configs"


def test_a_table_becomes_frozen_values(run_table: dict[str, Any]) -> None:
    config = parse_config(run_table, "here")
    assert [phase.name for phase in config.phases] == ["find", "mask"]
    assert config.data.side_px == 64
    assert config.ema_decay == 0.999


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.toml")), ids=lambda path: path.stem)
def test_the_configurations_of_the_repository_are_valid(path: Path) -> None:
    assert load_config(path).phases


def _phase(**changes: Any) -> dict[str, Any]:
    return {"phases": changes}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sede": 1}, r"here: unknown sede; allowed are name, preset, phases"),
        ({"preset": "huge"}, r"preset 'huge' is unknown; allowed are tiny"),
        ({"precision": "fp8"}, r"precision 'fp8' is unknown; allowed are fp32, bf16"),
        ({"seed": "one"}, r"here: seed must be a whole number; got 'one'"),
        ({"seed": True}, r"seed must be a whole number; got True"),
        ({"ema_decay": 1.5}, r"ema_decay is 1.5; must be at most 1"),
        ({"data": {"side": 3}}, r"here: data: unknown side; allowed are side_px"),
        ({"data": {"side_px": 32}}, r"here: data: side_px is 32; must be at least 64"),
        (
            {"data": {"styles": ["crayon"]}},
            r"data: a name in styles 'crayon' is unknown; allowed are noto, fluent",
        ),
        ({"name": ""}, "name is empty"),
        ({"initial_clip": "clip.pt"}, r"initial_clip goes with a published \.pth as initial_weights; got ''"),
        ({"data": {"seed": 2**40}}, r"here: data: seed is 1099511627776; must be below 4294967296"),
        ({"data": {"vocabulary": ["gadget"]}}, r"a noun in vocabulary 'gadget' is unknown; allowed are accordion"),
        ({"data": {"styles": []}}, r"here: data: styles is empty; allowed are noto, fluent-3d"),
        ({"data": 3}, r"here: data: must be a table; got 3"),
        ({"phases": []}, r"there is no \[\[phases\]\]"),
        ({"phases": {}}, r"phases must be a list of tables"),
    ],
)
def test_mistakes_in_a_run_are_named(run_table: dict[str, Any], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(run_table | changes, "here")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": "magic"}, r"here: phases\[0\]: objective 'magic' is unknown; allowed are close-ups"),
        ({"steps": 0}, r"steps is 0 and epochs is 0; one of them must be at least 1"),
        ({"steps": 3, "epochs": 3}, r"steps is 3 and epochs is 3; one of them"),
        ({"steps": 0, "epochs": 3}, r"epochs are of data sets, but sets is empty"),
        ({"lowest_learning_rate": 1e-6}, r"warmup_epochs, lowest_learning_rate and train_from_epoch go with epochs"),
        ({"sets": ["refcoco"]}, r"phase find: a name in sets 'refcoco' is unknown; allowed are"),
        ({"learned_per_image": 9}, r"learned_per_image is 9; must be at most"),
        ({"learned_per_image": 1}, r"objective 'grounding' learns all expressions; learned_per_image must be 0"),
        (
            {"sets": ["refcoco"], "loss_weights": {"naming": 1.0}},
            r"the loss 'naming' needs to know what patches show, which only scenes tell",
        ),
        (
            {"sets": ["refcoco"], "emphasis": {"size": 2.0}},
            r"emphasis and smallness go with scenes; data sets are as they are",
        ),
        ({"sets": ["refcoco"], "smallness": 2.0}, r"emphasis and smallness go with scenes"),
        ({"smallness": 0.5}, r"smallness"),
        ({"emphasis": {"colours": 2.0}}, r"a name in emphasis 'colours' is unknown; allowed are noun, position, size"),
        ({"optimizer": "sgd"}, r"optimizer 'sgd' is unknown; allowed are adamw, muon"),
        ({"sets": "refcoco"}, r"phases\[0\]: sets must be a list"),
        ({"learning_rate": 0.0}, r"learning_rate is 0.0; must be above 0"),
        ({"train": {"sam": 1.0}}, r"a name in train 'sam' is unknown; allowed are sam_image_encoder"),
        (
            {"train": {"clip_image_encoder": 1.0, "clip_image_encoder.blocks.1": 0.5}},
            r"train names clip_image_encoder\.blocks\.1 twice, as itself and as part of clip_image_encoder",
        ),
        ({"train": {}}, r"train is empty"),
        ({"loss_weights": {"box_l1": 1.0}}, r"a name in loss_weights 'box_l1' is unknown; allowed are similarity_bce"),
        ({"loss_weights": {"similarity_dice": "much"}}, r"loss_weights.similarity_dice must be a number; got 'much'"),
        ({"name": "mask"}, r"the names of phases must differ; got mask, mask"),
    ],
)
def test_mistakes_in_a_phase_are_named(run_table: dict[str, Any], changes: dict[str, Any], message: str) -> None:
    run_table["phases"][0] |= changes
    with pytest.raises(ConfigError, match=message):
        parse_config(run_table, "here")


def test_missing_keys_are_named(run_table: dict[str, Any]) -> None:
    del run_table["phases"][1]["objective"], run_table["phases"][1]["train"]
    with pytest.raises(ConfigError, match=r"here: phases\[1\]: missing objective, train"):
        parse_config(run_table, "here")


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*absent\.toml"):
        load_config(tmp_path / "absent.toml")
    (tmp_path / "broken.toml").write_text("name = ")
    with pytest.raises(ConfigError, match=r"broken\.toml is no TOML"):
        load_config(tmp_path / "broken.toml")
