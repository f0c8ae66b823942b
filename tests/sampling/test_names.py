"""Both naming schemes cover every sampler and scheduler, and for a wrong name the closest valid names are suggested."""

from __future__ import annotations

import subprocess
import sys

import pytest

from modules.core.errors import OptionsError
from modules.sampling import names
from modules.sampling.samplers import table


def test_every_name_has_a_sampler_and_the_other_way_round() -> None:
    assert set(names.SAMPLERS) == set(table.SAMPLERS)
    assert len(names.SAMPLERS) == 24
    for name, function in table.SAMPLERS.items():
        assert function.__name__ == f"sample_{name}"


@pytest.mark.parametrize("name", names.SAMPLERS)
def test_ids_and_labels_of_samplers_resolve_to_themselves(name: str) -> None:
    assert names.resolve_sampler(name) == (name, None)
    assert names.resolve_sampler(names.label_of(name, "karras").sampler) == (name, None)
    assert names.resolve_sampler(names.SAMPLER_LABELS[name].upper()) == (name, None)


@pytest.mark.parametrize("name", names.SCHEDULERS)
def test_ids_and_labels_of_schedulers_resolve_to_themselves(name: str) -> None:
    assert names.resolve_scheduler(name) == name
    assert names.resolve_scheduler(names.label_of("euler", name).schedule) == name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("DPM++ 2M Karras", ("dpmpp_2m", "karras")),
        ("DPM++ 2M SDE Exponential", ("dpmpp_2m_sde", "exponential")),
        ("DPM++ SDE Karras", ("dpmpp_sde", "karras")),
        ("DPM2 a Karras", ("dpm_2_ancestral", "karras")),
        ("Euler a", ("euler_ancestral", None)),
        ("k_euler_ancestral", ("euler_ancestral", None)),
        ("UniPC", ("uni_pc", None)),
        ("dpm++ 2s a", ("dpmpp_2s_ancestral", None)),
        ("euler_cfgpp", ("euler_cfg_pp", None)),
        ("euler_ancestral_cfgpp", ("euler_ancestral_cfg_pp", None)),
        ("dpmpp_2m_cfgpp", ("dpmpp_2m_cfg_pp", None)),
        ("dpmpp_sde_cfgpp", ("dpmpp_sde_cfg_pp", None)),
        ("dpmpp_sde_gpu", ("dpmpp_sde", None)),
        ("dpmpp_2m_sde_gpu", ("dpmpp_2m_sde", None)),
        ("dpmpp_3m_sde_gpu", ("dpmpp_3m_sde", None)),
        ("  Heun ", ("heun", None)),
    ],
)
def test_other_spellings_of_samplers(name: str, expected: tuple[str, str | None]) -> None:
    assert names.resolve_sampler(name) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Uniform", "normal"),
        ("Polyexponential", "exponential"),
        ("SGM Uniform", "sgm_uniform"),
        ("DDIM", "ddim_uniform"),
        ("KL Optimal", "kl_optimal"),
    ],
)
def test_other_spellings_of_schedulers(name: str, expected: str) -> None:
    assert names.resolve_scheduler(name) == expected


def test_automatic_is_the_usual_scheduler_of_the_sampler() -> None:
    assert names.resolve_scheduler("Automatic", sampler="dpmpp_2m") == "karras"
    assert names.resolve_scheduler("automatic", sampler="dpmpp_2m_sde") == "exponential"
    assert names.resolve_scheduler("Automatic", sampler="euler_ancestral") == "normal"
    for sampler in names.SAMPLERS:
        assert names.resolve_scheduler("Automatic", sampler=sampler) in names.SCHEDULERS


@pytest.mark.parametrize(
    ("name", "near"), [("eulr", "euler"), ("dpmpp2n", "dpmpp_2m"), ("DPM++ 2M Karas", "dpmpp_2m"), ("unipcc", "uni_pc")]
)
def test_an_unknown_sampler_is_answered_with_the_nearest(name: str, near: str) -> None:
    with pytest.raises(OptionsError) as caught:
        names.resolve_sampler(name)
    assert name in str(caught.value)
    assert near in str(caught.value).split("Did you mean")[1]
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("name", ["", "zzzz", "Restart qqqq"])
def test_a_name_near_to_nothing_is_answered_with_something_usable(name: str) -> None:
    with pytest.raises(OptionsError, match="euler"):
        names.resolve_sampler(name)


def test_an_unknown_scheduler_is_answered_with_the_nearest() -> None:
    with pytest.raises(OptionsError, match="Did you mean karras"):
        names.resolve_scheduler("karass")


def test_cfg_pp_samplers_say_so() -> None:
    assert names.uses_unconditional("dpmpp_2m_cfg_pp")
    assert not names.uses_unconditional("dpmpp_2m")


def test_names_are_known_without_torch() -> None:
    code = "import sys, modules.sampling.names; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
