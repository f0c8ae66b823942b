"""Pickles that call a function when loaded: each is refused, and nothing runs."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch

from modules.core.errors import ModelFileError
from modules.loader.files.state_dict import read_state_dict

GADGETS = (
    *("os.system", "posix.system", "subprocess.Popen", "subprocess.call", "builtins.eval", "builtins.exec", "os.execv"),
    *("builtins.__import__", "builtins.open", "builtins.getattr", "importlib.import_module", "runpy.run_path"),
    *("torch.hub.load", "torch.load", "torch.jit.load", "torch.serialization.load", "torch.ops.load_library"),
    *("numpy.load", "numpy.loads", "pickle.loads", "_pickle.loads", "marshal.loads", "types.FunctionType"),
    *("types.CodeType", "codecs.decode", "operator.attrgetter", "functools.partial", "shutil.rmtree", "pty.spawn"),
    *("webbrowser.open", "socket.create_connection", "ctypes.CDLL", "multiprocessing.Process", "timeit.timeit"),
    *("torch.utils.cpp_extension.load", "torch._dynamo.debug_utils.run_fwd_maybe_bwd", "torch.fx.graph_module.exec"),
    *("pathlib.Path.unlink", "tempfile.mkstemp", "code.interact", "pdb.run", "site.execsitecustomize", "idlelib.run"),
)


@pytest.mark.parametrize("zipped", [True, False])
def test_no_gadget_of_a_pickle_runs(zipped: bool, tmp_path: Path) -> None:
    trace, path = tmp_path / "ran", tmp_path / "m.pt"
    torch.save({"emb_params": torch.ones(2, 8)}, tmp_path / "good.pt")
    for gadget in GADGETS:
        module, _, name = gadget.rpartition(".")
        for argument in (f"touch {trace}", f"open({str(trace)!r}, 'w')", str(trace)):
            bomb = f"c{module}\n{name}\n(V{argument}\ntR.".encode()
            path.write_bytes(bomb)
            if zipped:
                replace_pickle(tmp_path / "good.pt", path, bomb)
            with pytest.raises(ModelFileError) as raised:
                read_state_dict(path)
            assert "m.pt" in str(raised.value) and not trace.exists(), gadget


def replace_pickle(source: Path, target: Path, pickle: bytes) -> None:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            new.writestr(name, pickle if name.endswith("data.pkl") else old.read(name))
