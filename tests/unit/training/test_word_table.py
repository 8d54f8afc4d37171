import pytest
import torch
from torch import nn

from ssp_sam.config import Preset
from ssp_sam.data import SceneGenerator
from ssp_sam.modeling.ssp_sam import SspSam
from ssp_sam.tokenizer import tokenize
from ssp_sam.training.trainee import Trainee, draw_weights
from ssp_sam.training.word_table import IN_EVERY_PHRASE, WordsInUse, tokens_of_scenes, train_only_words_of_scenes


@pytest.fixture
def table() -> torch.Tensor:
    return torch.randn(12, 3, generator=torch.Generator().manual_seed(4))


def test_answers_and_learns_as_the_whole_table_does(table: torch.Tensor) -> None:
    whole, part = nn.Embedding.from_pretrained(table.clone(), freeze=False), WordsInUse(table, torch.tensor([7, 2, 5]))
    token_ids = torch.tensor([[2, 5], [5, 7]])
    for module in (whole, part):
        optimizer = torch.optim.AdamW(module.parameters(), lr=0.1, weight_decay=0.0)
        for _ in range(3):
            optimizer.zero_grad()
            module(token_ids).square().sum().backward()
            optimizer.step()
    assert not torch.equal(whole.weight, table)
    assert torch.equal(part.state_dict()["weight"], whole.weight)
    assert torch.equal(part(torch.arange(12)), whole.weight), "rows that are not trained are answered as well"
    assert part.weight.shape == (3, 3)


def test_is_saved_and_loaded_as_the_whole_table(table: torch.Tensor) -> None:
    part = WordsInUse(torch.zeros_like(table), torch.tensor([0, 11]))
    part.load_state_dict({"weight": table})
    assert torch.equal(part(torch.arange(12)), table)
    assert part.state_dict().keys() == {"weight"}
    assert torch.equal(part.state_dict()["weight"], table)
    before = part.state_dict()["weight"]
    part.weight.data.zero_()
    assert torch.equal(before, table), "what was saved is a copy"
    with pytest.raises(RuntimeError, match="weight"):
        part.load_state_dict({})


def test_words_that_no_run_has_read_are_drawn_and_others_stay(nano: Preset) -> None:
    model = SspSam(nano)
    table = model.text_encoder.tower.embeddings.token_embedding.weight.data
    first, second = tokens_of_scenes()[1:3]
    table[[first, second]] = 0
    before = table.clone()
    train_only_words_of_scenes(model)
    after = model.text_encoder.tower.embeddings.token_embedding.state_dict()["weight"]
    assert not torch.equal(after[first], after[second])
    assert after[[first, second]].all(dim=1).all()
    after[[first, second]] = 0
    assert torch.equal(after, before)


def test_what_is_in_every_phrase_tells_nothing_at_first(nano: Preset) -> None:
    trainee = Trainee(nano)
    draw_weights(trainee)
    train_only_words_of_scenes(trainee.model)
    table = trainee.model.text_encoder.tower.embeddings.token_embedding.state_dict()["weight"]
    assert not table[list(IN_EVERY_PHRASE)].any()
    others = sorted(set(tokens_of_scenes()) - set(IN_EVERY_PHRASE))
    assert table[others].any(dim=1).all()


def test_the_rows_are_those_of_the_phrases_about_scenes(nano: Preset) -> None:
    model = SspSam(nano)
    names = model.state_dict().keys()
    train_only_words_of_scenes(model)
    assert model.state_dict().keys() == names
    embedding = model.text_encoder.tower.embeddings.token_embedding
    assert isinstance(embedding, WordsInUse)
    assert len(embedding.weight) < 1000
    used = set(embedding.token_ids.tolist())
    generator = SceneGenerator(expressions_per_scene=8)
    spoken = [expression.phrase for index in range(40) for expression in generator.scene(index).expressions]
    for phrase in spoken:
        assert used.issuperset(tokenize([phrase])[0].tolist()), phrase
