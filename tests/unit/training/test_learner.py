import torch
from torch.nn import functional as F

from ssp_sam.training.learner import attention_for_training


def test_attention_for_training_is_attention() -> None:
    generator = torch.Generator().manual_seed(3)
    inputs = [torch.randn(2, 3, length, 8, generator=generator, requires_grad=True) for length in (5, 7, 7)]
    seen = torch.rand(2, 1, 1, 7, generator=generator) < 0.6
    bias = torch.randn(2, 3, 5, 7, generator=generator)
    for mask in (None, seen, bias):
        expected = F.scaled_dot_product_attention(*inputs, attn_mask=mask)
        gradients = torch.autograd.grad(expected.square().sum(), inputs)
        with attention_for_training(torch.device("cpu")):
            plain = F.scaled_dot_product_attention(*inputs, **({} if mask is None else {"attn_mask": mask}))
        torch.testing.assert_close(plain, expected)
        torch.testing.assert_close(torch.autograd.grad(plain.square().sum(), inputs), gradients)


def test_attention_for_training_has_the_type_of_autocast() -> None:
    q = torch.randn(1, 1, 4, 8, generator=torch.Generator().manual_seed(3))
    with torch.autocast("cpu", torch.bfloat16), attention_for_training(torch.device("cpu")):
        plain = F.scaled_dot_product_attention(q, q, q)
    assert plain.dtype == torch.bfloat16
    torch.testing.assert_close(plain.float(), F.scaled_dot_product_attention(q, q, q), atol=0.03, rtol=0)
