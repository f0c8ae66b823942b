"""Pitfalls of CUDA graph capture: the table's rules with fake graphs, and the pitfalls themselves on a GPU."""

from __future__ import annotations

import logging

import pytest
import torch

from modules.stable_fast.runtime.capture import CapturedGraph, CaptureError, GraphPool
from modules.stable_fast.runtime.capture_table import GraphTable


class FakeGraph:
    """Stands in for a captured graph: counts replays and remembers its release."""

    def __init__(self, function, size, pool):
        self._function, self.bytes, self._pool = function, size, pool
        self.replays, self.is_released = 0, False

    def __call__(self, *inputs):
        assert not self.is_released
        self.replays += 1
        return self._function(*inputs)

    def release(self):
        self.is_released = True
        if self._pool.is_empty:
            self._pool.bytes = 0


class FakeCapture:
    """A pool like PyTorch's: its memory is freed when the last graph is released."""

    def __init__(self, size=10, error=None):
        self.size, self.error, self.graphs, self.bytes = size, error, [], 0

    @property
    def is_empty(self):
        return all(graph.is_released for graph in self.graphs)

    def __call__(self, function, inputs):
        if self.error is not None:
            raise self.error
        self.graphs.append(FakeGraph(function, self.size, self))
        self.bytes += self.size
        return self.graphs[-1]

    def start_over(self):
        for graph in self.graphs:
            graph.release()


def double(x):
    return 2 * x


ONE = (torch.ones(1),)


def test_a_key_is_captured_once_and_replayed_after():
    capture = FakeCapture()
    table = GraphTable(capture)
    for _ in range(3):
        assert table.run("key", double, ONE).item() == 2
    assert table.captures == 1 and capture.graphs[0].replays == 3


def test_the_least_recently_used_graph_goes_first():
    capture = FakeCapture()
    table = GraphTable(capture, max_graphs=2)
    for key in ("a", "b", "a", "c"):  # a was used after b
        table.run(key, double, ONE)
    assert [graph.is_released for graph in capture.graphs] == [False, True, False]
    table.run("a", double, ONE)
    assert table.captures == 3
    table.run("b", double, ONE)
    assert table.captures == 4 and len(table) == 2


def test_what_does_not_fit_beside_the_others_makes_them_go():
    capture = FakeCapture(size=40)
    table, other = GraphTable(capture, max_bytes=100), GraphTable(capture, max_bytes=100)
    other.run("a", double, ONE)
    for key in "bc":
        table.run(key, double, ONE)
    assert [graph.is_released for graph in capture.graphs] == [True, True, True, False]  # c: twice, now alone
    assert (len(other), len(table), table.bytes, capture.bytes) == (0, 1, 40, 40)
    assert "c" in table and "b" not in table and "a" not in other and not table.reasons
    assert other.run("a", double, ONE).item() == table.run("b", double, ONE).item() == 2  # captured again
    assert "a" not in other and "b" in table  # capturing b evicted the other table's a


def test_a_graph_larger_than_the_budget_is_not_kept(caplog):
    capture = FakeCapture(size=200 << 20)
    table = GraphTable(capture, max_bytes=100 << 20)
    assert table.run("key", double, ONE).item() == 2
    assert capture.graphs[0].is_released and len(table) == 0 and capture.bytes == 0
    assert table.reasons == {"key": "its graph needs 200 MiB, more than the 100 allowed"}
    assert table.run("key", double, ONE).item() == 2 and table.captures == 1


def test_what_cannot_be_captured_runs_eagerly_and_says_so_once(caplog):
    table = GraphTable(FakeCapture(error=CaptureError("operation not permitted when stream is capturing")))
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert table.run("key", double, ONE).item() == 2
    assert caplog.text.count("not permitted") == 1 and table.captures == 0
    assert table.reasons == {"key": "operation not permitted when stream is capturing"}


def test_without_memory_every_graph_is_given_up():
    capture = FakeCapture()
    table, other = GraphTable(capture), GraphTable(capture)
    table.run("a", double, ONE)
    other.run("a", double, ONE)
    capture.error = torch.OutOfMemoryError("CUDA out of memory")
    assert table.run("b", double, ONE).item() == 2
    assert len(table) == len(other) == 0 and "memory" in table.reasons["b"]
    capture.error = None
    assert table.run("a", double, ONE).item() == 2 and "a" in table


def test_memory_that_other_graphs_held_is_enough():
    class Tight(FakeCapture):
        def __call__(self, function, inputs):
            if not self.is_empty:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().__call__(function, inputs)

    table = GraphTable(Tight())
    for key in "aba":
        assert table.run(key, double, ONE).item() == 2
        assert len(table) == 1 and key in table
    assert not table.reasons


def test_other_errors_pass_through():
    table = GraphTable(FakeCapture(error=ValueError("a bug")))
    with pytest.raises(ValueError, match="a bug"):
        table.run("key", double, ONE)


def test_drop_and_release_forget_reasons_too():
    capture = FakeCapture(error=CaptureError("no"))
    table = GraphTable(capture)
    table.run("a", double, ONE)
    capture.error = None
    table.drop("a")
    table.run("a", double, ONE)
    assert table.captures == 1
    table.release()
    assert capture.graphs[0].is_released and not table.reasons and table.bytes == 0


# On a GPU: what goes wrong if a graph is used carelessly.


@pytest.fixture
def pool():
    return GraphPool(torch.device("cuda"))


@pytest.mark.gpu
def test_outputs_are_not_overwritten_by_the_next_replay(pool):
    graph = CapturedGraph(lambda x: x + 1, [torch.zeros(4, device="cuda")], pool)
    first = graph(torch.zeros(4, device="cuda"))
    second = graph(torch.full((4,), 5.0, device="cuda"))
    assert first.tolist() == [1.0] * 4 and second.tolist() == [6.0] * 4


@pytest.mark.gpu
def test_weights_changed_in_place_are_seen(pool):
    weight = torch.ones(4, device="cuda")
    graph = CapturedGraph(lambda x: x * weight, [torch.ones(4, device="cuda")], pool)
    weight.copy_(torch.full((4,), 3.0, device="cuda"))
    assert graph(torch.ones(4, device="cuda")).tolist() == [3.0] * 4


@pytest.mark.gpu
def test_another_shape_is_refused(pool):
    graph = CapturedGraph(lambda x: x + 1, [torch.zeros(4, device="cuda")], pool)
    with pytest.raises(AssertionError, match="one shape"):
        graph(torch.zeros(5, device="cuda"))


@pytest.mark.gpu
def test_graphs_sharing_a_pool_do_not_disturb_each_other(pool):
    def work(x):
        return (x @ x).relu() @ x

    inputs = [torch.randn(n, n, device="cuda") for n in (64, 128, 64)]
    graphs = [CapturedGraph(work, [x], pool) for x in inputs]
    for _ in range(3):
        for graph, x in zip(graphs, inputs, strict=True):
            torch.testing.assert_close(graph(x), work(x))
    for graph in graphs:
        graph.release()
    again = CapturedGraph(work, [inputs[0]], pool)  # the emptied pool can be used once more
    torch.testing.assert_close(again(inputs[0]), work(inputs[0]))


@pytest.mark.gpu
def test_a_graph_outlives_the_workspaces_of_its_stream(pool):
    """torch.compile clears the workspaces; so does resetting any graph from PyTorch 2.12 on."""
    x = torch.randn(64, 16384, device="cuda", dtype=torch.float16)
    weight = torch.randn(64, 16384, device="cuda", dtype=torch.float16)  # a split-K product, which needs a workspace
    graph = CapturedGraph(lambda x: x @ weight.T, [x], pool)
    expected = graph(x)
    torch._C._cuda_clearCublasWorkspaces()
    torch.cuda.empty_cache()
    others = [torch.ones(8 << 20, device="cuda") for _ in range(4)]  # 32 MiB each, in the place of freed memory
    assert torch.equal(graph(x), expected)
    assert all(bool((other == 1).all()) for other in others)


@pytest.mark.gpu
@pytest.mark.parametrize("others", [0, 1], ids=["in an empty pool", "beside a graph"])
def test_a_synchronising_function_is_declined_and_changes_nothing(pool, others):
    def reads_back(x):
        return x * float(x.sum().item())

    table, x, stream = GraphTable(pool), torch.ones(4, device="cuda"), torch.cuda.current_stream()
    for number in range(others):
        table.run(number, lambda x: x + 2, [x])
    assert table.run("key", reads_back, [x]).tolist() == [4.0] * 4
    assert "key" in table.reasons and torch.cuda.current_stream() == stream
    assert table.run("other", lambda x: x + 1, [x]).tolist() == [2.0] * 4  # the device is still usable
    assert table.captures == others + 1
    block = torch.empty(64 << 20, device="cuda")
    held = torch.cuda.memory_reserved()
    del block
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() < held - (200 << 20)  # cached memory can still be given back


@pytest.mark.gpu
def test_starting_over_gives_memory_back():
    pool, x = GraphPool(torch.device("cuda")), torch.ones(1, device="cuda")
    table = GraphTable(pool, max_bytes=1 << 30)
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()

    def large(x):
        return (x.expand(100 << 20) + 1).sum()  # 400 MiB

    assert table.run("large", large, [x]).item() == float(200 << 20)
    assert pool.bytes >= 400 << 20 and torch.cuda.memory_reserved() >= before + (400 << 20)
    pool.start_over()
    assert len(table) == 0 and torch.cuda.memory_reserved() <= before + (2 << 20)
    assert table.run("large", large, [x]).item() == float(200 << 20) and table.captures == 2


@pytest.mark.gpu
def test_every_op_can_be_captured(pool):
    from modules.stable_fast.doctor import self_test

    with torch.inference_mode():
        for case in self_test.cases(torch.device("cuda"), torch.float16):
            operator = getattr(torch.ops.lightdiffusion, case.op)
            graph = CapturedGraph(lambda *_, case=case, operator=operator: operator(*case.args), [case.args[0]], pool)
            torch.testing.assert_close(graph(case.args[0]), operator(*case.args))
            graph.release()
