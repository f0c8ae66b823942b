"""ModelPatcher: in-place changes, exact restoring, clones taking turns, fp32 maths, packed slices, listeners."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from modules.loader.files.state_dict import open_weights
from modules.loader.load_weights import fill_network
from modules.loader.patcher import ModelPatcher, WeightPatch, _home_of_copies


@dataclass(frozen=True, eq=False)
class Add:
    """Adds a tensor times the strength."""

    delta: Tensor
    slice: tuple[int, int, int] | None = None

    def apply(self, weight: Tensor, strength: float) -> Tensor:
        assert weight.dtype == torch.float32
        return weight + strength * self.delta.to(weight.device)


class Broken:
    slice = None

    def apply(self, weight: Tensor, strength: float) -> Tensor:
        raise RuntimeError("broken patch")


def patcher(dtype: torch.dtype = torch.float16) -> ModelPatcher:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(8, 6), nn.Linear(6, 4)).to(dtype)
    return ModelPatcher(network, "cpu")


def bits(model: ModelPatcher) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.module.named_parameters()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def test_the_protocol_is_met() -> None:
    assert isinstance(Add(torch.zeros(1)), WeightPatch)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_apply_and_restore_are_exact(dtype: torch.dtype) -> None:
    model = patcher(dtype)
    before = bits(model)
    delta = torch.randn(6, 8)
    model.add_patches({"0.weight": [Add(delta)]}, 0.7)
    assert same(bits(model), before)  # nothing changes before apply
    model.apply()
    assert torch.equal(bits(model)["0.weight"], (before["0.weight"].float() + 0.7 * delta).to(dtype))
    assert torch.equal(bits(model)["1.weight"], before["1.weight"])
    model.restore()
    assert same(bits(model), before)
    model.apply()
    model.apply()
    assert torch.equal(bits(model)["0.weight"], (before["0.weight"].float() + 0.7 * delta).to(dtype))
    model.restore()
    assert same(bits(model), before)


def test_parameters_are_written_never_rebound() -> None:
    model = patcher()
    parameters = {name: (id(p), p.data_ptr(), p.stride()) for name, p in model.module.named_parameters()}
    model.add_patches({name: [Add(torch.ones(()))] for name in parameters}, 1.0)
    model.apply()
    model.restore()
    model.apply()
    assert {name: (id(p), p.data_ptr(), p.stride()) for name, p in model.module.named_parameters()} == parameters


def test_channels_last_weights_keep_their_layout() -> None:
    network = nn.Conv2d(4, 4, 3).to(memory_format=torch.channels_last)
    model = ModelPatcher(network, "cpu")
    before, delta = network.weight.detach().clone(), torch.randn(4, 4, 3, 3)
    model.add_patches({"weight": [Add(delta)]}, 1.0)
    model.apply()
    assert network.weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(network.weight, before + delta)


def test_many_patches_are_rounded_once() -> None:
    model = patcher(torch.bfloat16)
    before = bits(model)["0.weight"].float()
    small = torch.full((6, 8), 2.0**-12)
    model.add_patches({"0.weight": [Add(small)] * 64}, 1.0)
    model.apply()
    assert torch.equal(bits(model)["0.weight"], (before + 64 * small).bfloat16())
    assert not torch.equal(bits(model)["0.weight"].float(), before)


def test_patches_add_up_in_order_over_calls() -> None:
    model = patcher(torch.float32)
    before = bits(model)["0.bias"]
    model.add_patches({"0.bias": [Add(torch.ones(6))]}, 1.0)
    model.add_patches({"0.bias": [Add(torch.ones(6))]}, -0.25)
    model.apply()
    assert torch.equal(bits(model)["0.bias"], (before + 1.0) - 0.25)


def test_a_slice_touches_its_rows_only() -> None:
    model = patcher()
    before = bits(model)["0.weight"]
    model.add_patches({"0.weight": [Add(torch.ones(2, 8), slice=(0, 2, 2))]}, 1.0)
    model.apply()
    after = bits(model)["0.weight"]
    assert torch.equal(after[2:4], (before[2:4].float() + 1).half())
    assert torch.equal(after[:2], before[:2]) and torch.equal(after[4:], before[4:])
    model.restore()
    assert torch.equal(bits(model)["0.weight"], before)


def test_clones_take_turns() -> None:
    base = patcher()
    before = bits(base)
    one, two = base.clone(), base.clone()
    assert one.module is base.module
    a, b = torch.randn(6, 8), torch.randn(6, 8)
    one.add_patches({"0.weight": [Add(a)]}, 1.0)
    two.add_patches({"0.weight": [Add(b)], "1.bias": [Add(torch.ones(4))]}, 0.5)
    for _ in range(2):
        one.apply()
        assert torch.equal(bits(base)["0.weight"], (before["0.weight"].float() + a).half())
        assert torch.equal(bits(base)["1.bias"], before["1.bias"])
        two.apply()
        assert torch.equal(bits(base)["0.weight"], (before["0.weight"].float() + 0.5 * b).half())
        assert torch.equal(bits(base)["1.bias"], (before["1.bias"].float() + 0.5).half())
    base.apply()  # requests no patches at all
    assert same(bits(base), before)


def test_a_clone_inherits_and_then_goes_its_own_way() -> None:
    base = patcher()
    original = bits(base)["0.weight"]
    patch = Add(torch.ones(6, 8))
    base.add_patches({"0.weight": [patch]}, 1.0)
    twin = base.clone()
    twin.apply()
    once = bits(base)["0.weight"]
    assert torch.allclose(once, original + 1)
    twin.add_patches({"0.weight": [Add(torch.ones(6, 8))]}, 1.0)
    twin.apply()
    assert torch.allclose(bits(base)["0.weight"], original + 2)
    base.apply()
    assert torch.equal(bits(base)["0.weight"], once)


def test_strength_zero_adds_no_patch() -> None:
    model = patcher()
    before = bits(model)
    model.add_patches({"0.weight": [Add(torch.full((6, 8), torch.nan))]}, 0.0)
    model.apply()
    assert same(bits(model), before)


def test_unknown_weight_is_an_error() -> None:
    with pytest.raises(KeyError, match=r"9\.weight"):
        patcher().add_patches({"9.weight": [Add(torch.ones(1))]}, 1.0)


def test_listeners_hear_what_changed_and_only_then() -> None:
    base = patcher()
    heard: list[set[str]] = []
    base.on_weights_changed.append(heard.append)
    one, two = base.clone(), base.clone()
    shared = Add(torch.ones(6, 8))
    one.add_patches({"0.weight": [shared]}, 1.0)
    two.add_patches({"0.weight": [shared], "1.bias": [Add(torch.ones(4))]}, 1.0)
    one.apply()
    one.apply()
    two.apply()
    base.restore()
    base.restore()
    assert heard == [{"0.weight"}, {"1.bias"}, {"0.weight", "1.bias"}]


def test_a_failing_patch_leaves_a_model_that_can_be_restored() -> None:
    model = patcher()
    before = bits(model)
    bad = model.clone()
    bad.add_patches({"0.weight": [Add(torch.ones(6, 8))], "1.weight": [Broken()]}, 1.0)
    with pytest.raises(RuntimeError, match="broken patch"):
        bad.apply()
    model.restore()
    assert same(bits(model), before)


def test_pristine_copies_are_kept_for_patched_weights_only() -> None:
    model = patcher()
    model.add_patches({"0.bias": [Add(torch.ones(6))]}, 1.0)
    model.apply()
    assert set(model._state.pristine) == {"0.bias"}
    assert model._state.pristine["0.bias"].device.type == "cpu"
    model.restore()
    assert not model._state.pristine


def test_copies_stay_beside_the_weights_while_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    on_device = [torch.empty(100, dtype=torch.float16, device="meta"), torch.empty(50, device="meta")]  # 400 bytes
    for free, home in ((1600, None), (1599, torch.device("cpu"))):
        monkeypatch.setattr("modules.loader.patcher.free_memory", lambda _device, free=free: free)
        assert _home_of_copies(on_device) == home
    assert _home_of_copies([torch.empty(100)]) is None and _home_of_copies([]) is None


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every network counts as absent, so that a visit makes copies on the CPU as it would on a GPU."""
    monkeypatch.setattr("modules.loader.visit.is_away", lambda network, device: True)


@pytest.mark.usefixtures("away")
def test_the_part_at_work_has_its_patches_and_the_weights_at_home_have_none() -> None:
    model = patcher()
    before, places = bits(model), [parameter.data_ptr() for parameter in model.module.parameters()]
    delta = torch.randn(6, 8)
    changed = model.clone()
    changed.add_patches({"0.weight": [Add(delta)], "1.bias": [Add(torch.ones(4))]}, 0.7)
    for _ in range(2):
        with changed.at_work("0") as part:
            assert torch.equal(part.weight, (before["0.weight"].float() + 0.7 * delta).half())
            assert same(model.pristine(), before)
            moved = [
                now != then for now, then in zip(map(Tensor.data_ptr, model.module.parameters()), places, strict=True)
            ]
            assert moved == [True, True, False, False], "only this part is there"
        with changed.at_work("1") as part:
            assert torch.equal(part.bias, (before["1.bias"].float() + 0.7).half())
            assert torch.equal(bits(model)["0.weight"], before["0.weight"])
        with model.at_work("0"):
            assert same(bits(model), before)
        assert same(bits(model), before) and not model._state.merged and not model._state.pristine
    assert [parameter.data_ptr() for parameter in model.module.parameters()] == places


@pytest.mark.usefixtures("away")
def test_patches_merged_at_home_are_taken_out_before_work() -> None:
    model = patcher()
    before = bits(model)
    changed = model.clone()
    changed.add_patches({"0.weight": [Add(torch.ones(6, 8))]}, 1.0)
    changed.apply()
    with model.at_work("0"):
        assert same(bits(model), before)
    assert same(bits(model), before)


@pytest.mark.usefixtures("away")
def test_after_a_patch_that_fails_the_weights_at_home_are_whole() -> None:
    model = patcher()
    before = bits(model)
    bad = model.clone()
    bad.add_patches({"0.weight": [Broken()]}, 1.0)
    with pytest.raises(RuntimeError, match="broken patch"), bad.at_work("0"):
        pass
    assert same(bits(model), before) and same(model.pristine(), before)


def test_leaving_takes_the_patches_out() -> None:
    model = patcher()
    before = bits(model)
    model.add_patches({"0.weight": [Add(torch.ones(6, 8))]}, 1.0)
    model.apply()
    model.leave()
    assert same(bits(model), before) and next(model.module.parameters()).device.type == "cpu"


def test_to_spare_memory_copies_and_patches_stay_off_the_device() -> None:
    model = ModelPatcher(nn.Linear(8, 6, device="meta"), "meta")
    model.add_patches({"weight": [Add(torch.ones(6, 8))]}, 1.0)
    assert model.patch_device == torch.device("meta")
    model.spare_memory()
    assert model.patch_device == model.clone().patch_device == torch.device("cpu")


def test_a_patch_may_return_its_argument_without_harm() -> None:
    class Idle:
        slice = None

        def apply(self, weight: Tensor, strength: float) -> Tensor:
            return weight

    for dtype in (torch.float16, torch.float32):
        model = patcher(dtype)
        before = bits(model)
        model.add_patches({"0.weight": [Idle(), Add(torch.ones(2, 8), slice=(0, 2, 2))]}, 1.0)
        model.apply()
        assert torch.equal(bits(model)["0.weight"][2:4], (before["0.weight"][2:4].float() + 1).to(dtype))
        model.restore()
        assert same(bits(model), before)


def test_patching_mapped_weights_never_changes_the_file(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    source = patcher().module
    save_file({name: p.detach() for name, p in source.named_parameters()}, path)
    before = path.read_bytes()
    opened = open_weights(path)
    with torch.device("meta"):
        network = nn.Sequential(nn.Linear(8, 6), nn.Linear(6, 4))
    fill_network(network, opened.tensors, torch.device("cpu"), torch.float16, opened.drop_pages, "network")
    model = ModelPatcher(network, "cpu")
    model.add_patches({"0.weight": [Add(torch.ones(6, 8))]}, 1.0)
    model.apply()
    assert not torch.equal(network[0].weight, load_file(path)["0.weight"])
    assert path.read_bytes() == before
    model.restore()
    assert torch.equal(network[0].weight, load_file(path)["0.weight"])


def test_the_function_wrapper_belongs_to_one_clone() -> None:
    base = patcher()
    clone = base.clone()
    clone.set_unet_function_wrapper(lambda *_args: None)
    assert base.unet_function_wrapper is None and clone.unet_function_wrapper is not None
    assert clone.clone().unet_function_wrapper is clone.unet_function_wrapper
    clone.set_unet_function_wrapper(None)
    assert clone.unet_function_wrapper is None


@pytest.mark.gpu
@pytest.mark.parametrize("room", [4, 10**12])
def test_on_cuda_restored_bit_for_bit(room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The copies are on the GPU, or on the CPU if the GPU has no room."""
    monkeypatch.setattr("modules.loader.patcher.ROOM_FOR_COPIES", room)
    model = patcher()
    model.module.cuda()
    before = bits(model)
    model.add_patches({"0.weight": [Add(torch.randn(6, 8))]}, 0.3)
    model.apply()
    assert {copy.device.type for copy in model._state.pristine.values()} == {"cuda" if room == 4 else "cpu"}
    assert not same(bits(model), before)
    model.restore()
    assert same(bits(model), before)
