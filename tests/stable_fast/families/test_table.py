"""48 networks of diffusers and transformers with their batch and sizes named, and the table of them in the docs."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest

from modules.core.paths import PROJECT_ROOT
from tests.stable_fast.families import autoencoders, encoders, transformers_of_pictures, transformers_of_videos, unets
from tests.stable_fast.families.trial import Network, tried

NETWORKS: Mapping[str, Network] = {
    **unets.NETWORKS,
    **autoencoders.NETWORKS,
    **transformers_of_pictures.NETWORKS,
    **transformers_of_videos.NETWORKS,
    **encoders.NETWORKS,
}
DOCS = PROJECT_ROOT / "docs" / "diffusers.md"
FEWEST = 42  # of the 48 have to work at every size without a new trace
FAST = ("ViT", "Llama, decode with cache")  # of those whose sizes are sums


def rows() -> list[str]:
    """The rows of the table of networks."""
    page = DOCS.read_text(encoding="utf-8")
    table = page[page.index("| Network |") :]
    return re.match(r"(?:\|.*\n?)*", table)[0].splitlines()[2:]  # type: ignore[index]


def check_row(name: str) -> None:
    network = NETWORKS[name]
    trial = tried(network)
    assert trial.is_complete == (not network.anew), f"{name}: {trial}"
    row = trial.row(name, network.anew)
    assert row in rows(), f"docs/diffusers.md needs this row:\n{row}"


@pytest.mark.parametrize("name", FAST)
def test_a_second_batch_and_other_sizes_need_no_new_trace(name: str) -> None:
    check_row(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NETWORKS if name not in FAST])
def test_so_it_is_for_all_others_as_the_docs_say(name: str) -> None:
    check_row(name)


def test_the_table_has_all_networks_and_most_work_at_every_size() -> None:
    assert [row.split(" | ")[0].removeprefix("| ") for row in rows()] == list(NETWORKS)
    assert len(NETWORKS) == 48
    assert sum(not network.anew for network in NETWORKS.values()) >= FEWEST
