"""The example of a growing cluster fits Ray's own schema."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.docs.fences import to_run


@pytest.mark.skipif(find_spec("ray") is None, reason="needs ray (requirements-cluster.txt)")
def test_the_example_fits_rays_schema() -> None:
    import jsonschema
    import ray
    import yaml

    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text(encoding="utf-8"))
    example = next(fence for fence in to_run("yaml") if fence.file == "cluster.yaml")
    jsonschema.validate(yaml.safe_load(example.text), schema)
