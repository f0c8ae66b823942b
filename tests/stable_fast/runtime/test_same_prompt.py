"""The prompt stage runs again when the prompt changes, and only then."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from modules.stable_fast import compile_module
from modules.stable_fast.runtime.same_prompt import SamePrompt
from tests.stable_fast.networks import rel_error


def test_a_prompt_is_known_by_its_tensor_and_version() -> None:
    same, text = SamePrompt(), torch.ones(2)
    first = same.number({"text": text})
    assert same.number({"text": text}) == first
    text.add_(1)
    second = same.number({"text": text})
    assert second != first
    assert same.number({"text": text.clone()}) not in (first, second)


def test_inference_tensors_are_known_by_their_contents() -> None:
    with torch.inference_mode():
        same, text = SamePrompt(), torch.ones(2)
        first = same.number({"text": text})
        assert same.number({"text": text.clone()}) == first
        text.add_(1)
        assert same.number({"text": text}) != first
        assert same.number({"text": torch.ones(3)}) != first


class Prompted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.eval()

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        return x + self.linear(text)


@torch.no_grad()
@pytest.mark.parametrize("prepares", [False, True])
def test_no_call_uses_an_outdated_prompt(prepares: bool) -> None:
    module, x, text = Prompted(), torch.randn(2, 4), torch.randn(2, 4)
    fast = compile_module(module, {"x": x, "text": text}, {"text": "prompt"})
    if prepares:
        fast.prepare(text=torch.zeros(2, 4))
    for change in (lambda: None, lambda: text.mul_(3), lambda: None, lambda: module.linear.weight.mul_(2)):
        change()
        fast.refresh_weights()
        assert rel_error(fast(x, text), module(x, text)) < 1e-5
    other = torch.randn(2, 4)
    assert rel_error(fast(x, other), module(x, other)) < 1e-5
    assert rel_error(fast(x, text), module(x, text)) < 1e-5
