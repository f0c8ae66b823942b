"""Each module's tests are in the expected place: tests/<the same folders>/test_<its name>.py."""

from __future__ import annotations

from pathlib import PurePath
from typing import NamedTuple

from tests.house.source_tree import ROOT

SMALL = 40  # lines; smaller modules are tested through their users


class Elsewhere(NamedTuple):
    """Modules (a pattern) whose tests below tests/ have another name, and the reason. A module may be in two rows."""

    modules: str
    test: str
    why: str


ELSEWHERE = (
    Elsewhere("api/a1111/answers.py", "api/a1111/test_text_to_image.py", "what its client makes of an answer"),
    Elsewhere("api/a1111/endpoints.py", "api/a1111/test_lists.py", "each endpoint by its client"),
    Elsewhere("api/a1111/refusals.py", "api/a1111/test_text_to_image.py", "each field that is refused"),
    Elsewhere("api/dialect.py", "api/a1111/test_lists.py", "each answer, in its form"),
    Elsewhere("api/guard/access.py", "api/guard/test_admission.py", "who is let in"),
    Elsewhere("api/guard/asgi.py", "api/guard/test_guard.py", "what the guard answers"),
    Elsewhere("api/openai_images/*", "api/openai_images/test_client.py", "each endpoint by OpenAI's client"),
    Elsewhere("api/guard/other_sites.py", "api/test_mount.py", "sites that may call, by a started server"),
    Elsewhere("cli/streams.py", "cli/test_console.py", "what is told, seen with the bars on"),
    Elsewhere("cli/synonyms.py", "cli/test_arguments.py", "each other name as it is typed"),
    Elsewhere("cli/words.py", "cli/test_arguments.py", "each word where it may stand"),
    Elsewhere("modules/cluster/messages.py", "cluster/test_travel.py", "an order there and back"),
    Elsewhere("modules/controlnet/layouts.py", "controlnet/test_load.py", "each layout gives diffusers' network"),
    Elsewhere("modules/core/progress.py", "core/test_download.py", "its events, from the one that makes most"),
    Elsewhere("modules/core/runner.py", "generation/test_eager_runner.py", "the contract, by its simplest runner"),
    Elsewhere("modules/core/typed.py", "hostile/test_typed_readers.py", "every reader on values of any type"),
    Elsewhere("modules/generation/checks/model_files.py", "generation/test_session.py", "what a session refuses"),
    Elsewhere("modules/generation/passes/batch.py", "generation/test_together.py", "the rows of several requests"),
    Elsewhere("modules/generation/progress.py", "generation/passes/test_sampling_pass.py", "each step as it is told"),
    Elsewhere("modules/generation/metadata/*", "generation/metadata/test_write.py", "each field there and back"),
    Elsewhere("modules/generation/metadata/lasting_names.py", "cli/test_from_image.py", "files that moved are found"),
    Elsewhere("modules/generation/metadata/left_out.py", "generation/metadata/programs/test_a1111.py", "named once"),
    Elsewhere("modules/generation/metadata/recall.py", "hostile/test_picture_texts.py", "every changed text"),
    Elsewhere("modules/generation/metadata/programs/*", "generation/metadata/programs/test_comfyui.py", "its graph"),
    Elsewhere("modules/loader/detection/*", "loader/detection/test_detect.py", "a file goes through all of them"),
    Elsewhere("modules/loader/files/*", "loader/files/test_open_file.py", "the way into all of them"),
    Elsewhere("modules/loader/layouts/*", "loader/layouts/test_layouts.py", "one checkpoint in each layout"),
    Elsewhere("modules/loader/load_weights.py", "loader/test_checkpoint.py", "weights reach their network"),
    Elsewhere("modules/lora/*", "lora/test_apply.py", "names and families, by what a file changes"),
    Elsewhere("modules/models/*", "models/test_unet.py", "the parts of the UNet and its ControlNet, by diffusers"),
    Elsewhere("modules/models/esrgan.py", "loader/test_upscaler.py", "the network that a file of each layout fills"),
    Elsewhere("modules/sampling/samplers/*", "sampling/samplers/test_table.py", "what holds for every sampler"),
    Elsewhere("modules/text/embedding_names.py", "text/test_embeddings.py", "names as they stand in a prompt"),
    Elsewhere("modules/stable_fast/*", "stable_fast/test_compiler.py", "the steps from network to program"),
    Elsewhere("modules/stable_fast/changes/*", "stable_fast/changes/test_watch.py", "each way to change a network"),
    Elsewhere("modules/stable_fast/doctor/*", "stable_fast/doctor/test_diagnose.py", "what the doctor looks at"),
    Elsewhere("modules/stable_fast/graph/*", "stable_fast/graph/test_trace.py", "a trace uses all of them"),
    Elsewhere(
        "modules/stable_fast/graph/serialize.py", "stable_fast/store/test_cache.py", "a kept graph gives the same bits"
    ),
    Elsewhere("modules/stable_fast/kernels/*", "stable_fast/kernels/test_launch.py", "what one launch needs"),
    Elsewhere("modules/stable_fast/kernels/*/*", "stable_fast/kernels/test_ops.py", "operators against PyTorch"),
    Elsewhere(
        "modules/stable_fast/kernels/conv/cudnn_graph.py",
        "stable_fast/doctor/test_self_test.py",
        "a GPU's library, tried by the doctor",
    ),
    Elsewhere(
        "modules/stable_fast/kernels/linear/cublaslt.py",
        "stable_fast/doctor/test_self_test.py",
        "a GPU's library, tried by the doctor",
    ),
    Elsewhere(
        "modules/stable_fast/kernels/norm/*", "stable_fast/kernels/norm/test_group_norm_silu.py", "each launch strategy"
    ),
    Elsewhere("modules/stable_fast/pipelines/*", "stable_fast/pipelines/test_compile.py", "whole pipelines"),
    Elsewhere("modules/stable_fast/passes/*", "stable_fast/passes/test_unet.py", "all passes on whole UNets"),
    Elsewhere("modules/stable_fast/passes/eight_bits/*", "stable_fast/test_eight_bits.py", "by fake quantisation"),
    Elsewhere(
        "modules/stable_fast/kernels/eight_bits/dequantize_channels.py",
        "stable_fast/kernels/eight_bits/test_quantize_rows.py",
        "weights there and back",
    ),
    Elsewhere("modules/stable_fast/calibration/*", "stable_fast/test_eight_bits.py", "scales of whole pictures"),
    Elsewhere(
        "modules/stable_fast/runtime/*", "stable_fast/test_compiler.py", "programs and their weights as they run"
    ),
    Elsewhere(
        "modules/stable_fast/runtime/capture*.py",
        "stable_fast/runtime/test_capture_footguns.py",
        "each trap of capture",
    ),
    Elsewhere("ui/arguments.py", "cli/test_arguments.py", "the same words as the command line"),
    Elsewhere("ui/browser/theme.py", "ui/test_layout.py", "the page's colours and sizes, measured in a browser"),
    Elsewhere("ui/events/*", "ui/test_generate.py", "each event as a click in a browser"),
    Elsewhere("ui/events/pictures/*", "ui/test_pictures.py", "each button under a picture, in a browser"),
    Elsewhere("ui/fields.py", "ui/test_requests.py", "fields become the request"),
    Elsewhere("ui/filled_form.py", "ui/test_requests.py", "a request becomes fields, and these the same request"),
    Elsewhere("ui/panels/*", "ui/test_app.py", "the page that they make, in a browser"),
    Elsewhere("ui/panels/form/*", "ui/test_requests.py", "the fields that become a request"),
    Elsewhere("ui/panels/results/*", "ui/test_app.py", "the tabs of the page, in a browser"),
    Elsewhere("ui/settings.py", "hostile/test_typed_readers.py", "settings of any values"),
)


def namesake(module: PurePath) -> PurePath:
    """Returns the expected test file. For the room `modules`, it is directly below tests/."""
    parts = module.parts[1:] if module.parts[0] == "modules" else module.parts
    return PurePath("tests", *parts[:-1], f"test_{module.name}")


def without_namesake() -> list[PurePath]:
    """Returns modules without such a test file, as paths from the root, like the patterns of the table."""
    paths = [path for room in ("modules", "ui", "cli", "api") for path in sorted((ROOT / room).rglob("*.py"))]
    long = [path.relative_to(ROOT) for path in paths if len(path.read_text(encoding="utf-8").splitlines()) > SMALL]
    assert len(long) > 150, "modules are seen at all"
    return [module for module in long if not (ROOT / namesake(module)).exists() and module.stem != "__init__"]


def test_each_module_has_its_tests_beside_it_or_is_in_the_table() -> None:
    homeless = [str(module) for module in without_namesake() if not any(module.match(row.modules) for row in ELSEWHERE)]
    assert not homeless, "name a test file after these, or say in the table what tests them:\n" + "\n".join(homeless)


def test_the_table_holds_nothing_stale() -> None:
    modules = without_namesake()
    unused = [row.modules for row in ELSEWHERE if not any(module.match(row.modules) for module in modules)]
    gone = [row.test for row in ELSEWHERE if not (ROOT / "tests" / row.test).exists()]
    assert not unused, "each of these modules has tests of its own name"
    assert not gone, "these test files are gone"


def test_no_test_file_is_left_in_the_root() -> None:
    assert not list((ROOT / "tests").glob("test_*.py"))
