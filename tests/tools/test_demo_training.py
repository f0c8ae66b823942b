"""Training can stop anywhere: a resumed stage equals an uninterrupted stage, and one command runs all stages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tools.demo_model import train
from tools.demo_model.training.loop import saved_state
from tools.demo_model.training.loop.budget import Budget, Clock
from tools.demo_model.training.loop.run_stage import run_stage
from tools.demo_model.training.loop.saved_state import StateFile
from tools.demo_model.training.loop.trainer import Trainer

STEPS, KILLED_AFTER = 30, 17


class Killed(Exception):
    """Simulates the loss of the machine."""


class StepBudget(Budget):
    """A budget in steps, so that two runs can be compared."""

    def __init__(self) -> None:
        super().__init__(Clock(1000.0), 1.0)
        self.done = 0

    @property
    def fraction(self) -> float:
        return self.done / STEPS

    @property
    def over(self) -> bool:
        return self.done >= STEPS


@pytest.fixture
def every_step_is_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saved_state, "SAVE_SECONDS", 0.0)


def network() -> nn.Linear:
    torch.manual_seed(7)
    return nn.Linear(4, 3)


def run(path: Path, *, kill: bool, resume: bool) -> nn.Linear:
    """Runs one stage on random batches; `kill` ends the stage in the middle of a step."""
    layer, budget, state = network(), StepBudget(), StateFile(path)
    trainer = Trainer(list(layer.parameters()), rate=0.05, dtype=torch.float32, average=0.9)
    saved = state.load(torch.device("cpu")) if resume else None
    if saved is not None:
        budget.done = int(saved["step"])  # type: ignore[call-overload]
        torch.manual_seed(99)  # the saved state must override the new process's draws

    def batch(_fraction: float, step: int) -> Tensor:
        budget.done = step + 1
        x = torch.randn(8, 4)
        if kill and step == KILLED_AFTER:
            raise Killed
        trainer.clear()
        loss = (layer(x) - x[:, :3] * 2).square().mean()
        loss.backward()
        trainer.update()
        return loss.detach()

    run_stage("test", trainer, budget, state, saved, batch)
    return layer


def test_a_resumed_stage_equals_one_that_ran_through(tmp_path: Path, every_step_is_saved: None) -> None:
    whole = run(tmp_path / "whole.pt", kill=False, resume=False)
    with pytest.raises(Killed):
        run(tmp_path / "cut.pt", kill=True, resume=False)
    resumed = run(tmp_path / "cut.pt", kill=False, resume=True)
    assert torch.equal(resumed.weight, whole.weight) and torch.equal(resumed.bias, whole.bias)
    assert not torch.equal(whole.weight, network().weight)
    saved = StateFile(tmp_path / "cut.pt").load(torch.device("cpu"))
    assert saved is not None and saved["step"] == STEPS
    assert {"trainer", "random", "clock"} <= set(saved) and list(tmp_path.glob("*.tmp")) == []


def test_forgetting_the_optimizer_would_be_noticed(tmp_path: Path, every_step_is_saved: None) -> None:
    with pytest.raises(Killed):
        run(tmp_path / "cut.pt", kill=True, resume=False)
    state = StateFile(tmp_path / "cut.pt")
    saved = state.load(torch.device("cpu"))
    assert saved is not None
    for moments in saved["trainer"]["optimizer"]["state"].values():  # type: ignore[index]
        moments["exp_avg"].zero_()
    state.save(saved)
    whole = run(tmp_path / "whole.pt", kill=False, resume=False)
    assert not torch.equal(run(tmp_path / "cut.pt", kill=False, resume=True).weight, whole.weight)


def test_a_loss_that_is_not_finite_goes_back_to_good_weights() -> None:
    layer = network()
    trainer = Trainer(list(layer.parameters()), rate=0.05, dtype=torch.float32)
    trainer.check(1.0)
    good = layer.weight.detach().clone()
    layer(torch.full((1, 4), float("nan"))).sum().backward()
    trainer.set_rate(0.0, 100)
    trainer.update()
    trainer.check(float("nan"))
    assert torch.equal(layer.weight, good) and trainer.peak == 0.025


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def call(*arguments: str) -> None:
        monkeypatch.setattr("sys.argv", ["train", "--device", "cpu", *arguments])
        train.main()

    return call


@pytest.mark.slow
def test_one_command_makes_a_checkpoint_and_goes_on_where_it_was(
    command: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, demo_checkpoint: Path
) -> None:
    """Takes seconds instead of minutes: the model is useless, but every stage, hand-over and export runs."""
    monkeypatch.setattr(saved_state, "SAVE_SECONDS", 0.0)
    real = train.polish_decoder

    def dies(*_arguments: object) -> None:
        raise Killed

    monkeypatch.setattr(train, "polish_decoder", dies)
    with pytest.raises(Killed):
        command("--out", str(tmp_path), "--minutes", "0.2")
    stages = ["autoencoder", "diffusion", "text"]
    assert sorted(path.stem for path in tmp_path.glob("*.pt")) == stages and not list(tmp_path.glob("*.safetensors"))
    before = {name: (tmp_path / f"{name}.pt").stat().st_mtime_ns for name in stages}
    monkeypatch.setattr(train, "polish_decoder", real)
    command("--out", str(tmp_path), "--minutes", "0.2")
    assert before == {name: (tmp_path / f"{name}.pt").stat().st_mtime_ns for name in stages}, "not trained again"
    made, shipped = load_file(tmp_path / "demo.safetensors"), load_file(demo_checkpoint)
    assert {key: value.shape for key, value in made.items()} == {key: value.shape for key, value in shipped.items()}
