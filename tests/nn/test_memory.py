"""Memory for adapted parameters."""

import torch

from allennlp_metaner.nn.memory import Buffers, give_back_free_memory

SHAPES = [(3, 2), (4,), (), (2, 2)]


def parameters_of(dtype: torch.dtype) -> list[tuple[str, torch.nn.Parameter]]:
    return [
        (str(number), torch.nn.Parameter(torch.randn(shape, dtype=dtype)))
        for number, shape in enumerate(SHAPES)
    ]


def test_every_parameter_of_every_task_has_its_own() -> None:
    parameters = parameters_of(torch.float64)
    buffers = Buffers(parameters)
    found = {
        (task, n): buffers.of_task(task, n, p) for task in range(3) for n, (_, p) in enumerate(parameters)
    }
    for number, ((task, n), buffer) in enumerate(found.items()):
        assert buffer.shape == SHAPES[n]
        assert buffer.dtype == torch.float64
        buffer.fill_(number)
        assert buffers.of_task(task, n, parameters[n][1]).data_ptr() == buffer.data_ptr()
    for number, buffer in enumerate(found.values()):
        assert (buffer == number).all()


def test_a_change_is_not_one_of_the_others() -> None:
    """Autograd refuses to go back through a tensor that was written to."""
    parameters = parameters_of(torch.float32)
    buffers = Buffers(parameters)
    one, other = (buffers.of_task(0, n, parameters[n][1]) for n in (0, 3))
    inputs = torch.ones(3, 2, requires_grad=True)
    loss = (inputs * one.fill_(2.0)).sum()
    other.fill_(1.0)
    loss.backward()
    assert (inputs.grad == 2.0).all()


def test_another_precision() -> None:
    single, double = parameters_of(torch.float32), parameters_of(torch.float64)
    buffers = Buffers(single)
    assert buffers.of_task(0, 0, single[0][1]).dtype == torch.float32
    assert buffers.of_task(0, 0, double[0][1]).dtype == torch.float64


def test_clear() -> None:
    parameters = parameters_of(torch.float32)
    buffers = Buffers(parameters)
    kept = buffers.of_task(0, 0, parameters[0][1]).fill_(1.0)
    buffers.clear()
    buffers.of_task(0, 0, parameters[0][1]).fill_(2.0)
    assert (kept == 1.0).all()


def test_giving_back_changes_nothing() -> None:
    tensor = torch.arange(10**6)
    give_back_free_memory()
    assert torch.equal(tensor, torch.arange(10**6))
