"""The attention's formula, the choice of its kernels, and that the choice can be seen."""

import dataclasses
import logging

import pytest
import torch
from natgen import NAT
from natgen.attention import attend, choose_attention, xformers_obstacle

CPU = torch.device("cpu")


def test_attention_matches_its_formula():
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 2, 5, 3, 4, generator=generator).unbind()
    scores = torch.einsum("bihd,bjhd->bhij", q, k) / 2  # sqrt(4)
    expected = torch.einsum("bhij,bjhd->bihd", scores.softmax(-1), v)
    for backend in ("auto", "sdpa"):
        torch.testing.assert_close(attend(q, k, v, backend), expected, atol=1e-6, rtol=1e-5)


def test_xformers_is_refused_where_it_has_no_operator(class_config):
    assert xformers_obstacle(CPU, torch.float32, 4, False) is not None
    x = torch.zeros(1, 2, 1, 4)
    with pytest.raises(RuntimeError, match=r"xformers.*'cpu'.*'sdpa'"):
        attend(x, x, x, "xformers")
    model = NAT(dataclasses.replace(class_config, attention="xformers"))
    with pytest.raises(RuntimeError, match=r"xformers.*'cpu'"):
        model.attention_choice()


def test_the_choice_is_logged_once(caplog):
    head_dim = 41  # of no other test: choices are kept
    with caplog.at_level(logging.INFO, "natgen.attention"):
        choices = [choose_attention("auto", CPU, torch.float32, head_dim, True) for _ in range(3)]
        attend(*torch.zeros(3, 1, 2, 1, head_dim).unbind(), "auto")
    assert set(choices) == {choices[0]}
    (record,) = caplog.records
    assert "attention on cpu in torch.float32, head_dim 41, with gradients" in record.message
    assert "no operators for device 'cpu'" in record.message


def test_choices_by_setting(monkeypatch):
    monkeypatch.setattr("natgen.attention.xformers_obstacle", lambda *case: None)
    for setting, backend in (("auto", "xformers"), ("xformers", "xformers"), ("sdpa", "sdpa")):
        assert choose_attention(setting, CPU, torch.float32, 42, False).backend == backend
    monkeypatch.setattr("natgen.attention.xformers_obstacle", lambda *case: "it is too old")
    choice = choose_attention("auto", CPU, torch.float32, 43, False)
    assert choice.backend == "sdpa"
    assert "it is too old" in choice.reason


def test_a_model_tells_its_choice(class_model):
    assert class_model.attention_choice().backend == "sdpa"
    assert "'cpu'" in class_model.attention_choice(torch.bfloat16).reason


def test_the_choice_is_marked_as_pytorch_marks_constants():
    marked = torch.compiler.assume_constant_result(lambda: None)
    assert vars(marked)
    assert vars(choose_attention) == vars(marked)


def test_a_model_compiles_in_one_piece(class_model):
    tokens, labels = torch.full((2, 12), 16), torch.tensor([0, 5])
    compiled = torch.compile(class_model, backend="eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(
            compiled(tokens, labels).logits, class_model(tokens, labels).logits
        )


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("head_dim", [64, 72, 96])  # of the published sizes
def test_backends_agree_on_a_gpu(dtype, head_dim):
    device = torch.device("cuda", torch.cuda.current_device())
    if (obstacle := xformers_obstacle(device, dtype, head_dim, True)) is not None:
        pytest.skip(obstacle)
    tolerance = 2e-2 if dtype == torch.bfloat16 else 2e-3
    inputs = torch.randn(3, 2, 257, 8, head_dim, device=device, dtype=dtype)
    results = {}
    for backend in ("xformers", "sdpa"):
        leaf = inputs.clone().requires_grad_()
        attended = attend(*leaf.unbind(), backend)
        attended.float().square().sum().backward()
        results[backend] = attended.detach(), leaf.grad
    for one, other in zip(results["xformers"], results["sdpa"], strict=True):
        torch.testing.assert_close(one, other, atol=tolerance, rtol=tolerance)
