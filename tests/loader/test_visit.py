"""A network that visits a device comes home with the very weights it left there."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from modules.loader import visit
from modules.loader.visit import is_away, visiting

CPU = torch.device("cpu")


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every network counts as absent, so that a visit makes copies on the CPU as it would on a GPU."""
    monkeypatch.setattr(visit, "is_away", lambda network, device: True)


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).half()


def places(module: nn.Module) -> dict[str, int]:
    return {name: tensor.data_ptr() for name, tensor in module.state_dict().items()}


def values(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def test_a_network_on_another_kind_of_device_is_away() -> None:
    assert is_away(network(), torch.device("cuda", 1)) and not is_away(network(), CPU)
    assert not is_away(network().to("meta"), torch.device("meta"))


@pytest.mark.usefixtures("away")
@pytest.mark.parametrize("inference", [True, False])
def test_a_visitor_works_on_copies_of_its_weights(inference: bool) -> None:
    with torch.inference_mode(inference):
        visitor = network()
        at_home, before, parameters = places(visitor), values(visitor), list(visitor.parameters())
        with visiting(visitor, CPU) as homes:
            assert not set(places(visitor).values()) & set(at_home.values())
            assert {name: home.data_ptr() for name, home in homes.items()} == at_home
            assert all(torch.equal(tensor, before[name]) for name, tensor in values(visitor).items())
            visitor[0].weight.data.zero_()
        assert places(visitor) == at_home
        assert all(torch.equal(tensor, before[name]) for name, tensor in values(visitor).items())
        assert all(old is new for old, new in zip(parameters, visitor.parameters(), strict=True))


@pytest.mark.usefixtures("away")
def test_a_network_comes_home_after_an_error_too() -> None:
    visitor = network()
    at_home = places(visitor)
    with pytest.raises(ZeroDivisionError), visiting(visitor, CPU):
        raise ZeroDivisionError
    assert places(visitor) == at_home


@pytest.mark.usefixtures("away")
def test_a_wider_type_is_kept() -> None:
    visitor = network()
    before = values(visitor)
    with visiting(visitor, CPU):
        visitor.float()
    assert all(torch.equal(tensor, before[name].to(tensor.dtype)) for name, tensor in values(visitor).items())
    assert visitor[0].weight.dtype == torch.float32


def test_a_network_that_lives_there_stays_as_it_is() -> None:
    resident = network()
    at_home = places(resident)
    with visiting(resident, CPU) as homes:
        assert homes == {} and places(resident) == at_home
        resident[0].weight.data.zero_()
    assert not resident[0].weight.any()


@pytest.mark.gpu
def test_on_cuda_the_copies_are_there_and_gone_afterwards() -> None:
    cuda, visitor = torch.device("cuda"), network()
    x = torch.randn(1, 3, 4, 4).half()
    at_home, expected, before = places(visitor), visitor.eval()(x), torch.cuda.memory_allocated()
    with visiting(visitor, cuda):
        assert visitor[0].weight.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(visitor(x.cuda()).cpu(), expected, atol=1e-2, rtol=1e-2)
    assert places(visitor) == at_home and torch.cuda.memory_allocated() == before
