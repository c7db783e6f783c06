"""Which rows belong to which task."""

import pytest
import torch

from allennlp_metaner.nn.task_rows import NotSeparableError, Padding, TaskRows


def inputs(*shape: int) -> torch.Tensor:
    return torch.zeros(shape)


def test_sentences_and_packed_subwords() -> None:
    rows = TaskRows([2, 1, 3], [[9, 4, 12]])
    assert rows.sizes(inputs(6, 7, 4)) == [2, 1, 3]
    assert rows.slices(inputs(6, 7, 4)) == [slice(0, 2), slice(2, 3), slice(3, 6)]
    assert rows.sizes(inputs(25, 4)) == [9, 4, 12]
    assert rows.slices(inputs(25, 4)) == [slice(0, 9), slice(9, 13), slice(13, 25)]


def test_several_embedders() -> None:
    rows = TaskRows([1, 1], [[3, 4], [5, 6]])
    assert rows.sizes(inputs(7, 2)) == [3, 4]
    assert rows.sizes(inputs(11, 2)) == [5, 6]
    same = TaskRows([1, 1], [[3, 4], [3, 4]])
    assert same.sizes(inputs(7, 2)) == [3, 4]


@pytest.mark.parametrize(
    ("rows", "shape"),
    [
        (TaskRows([2, 1]), (4, 5)),
        (TaskRows([2, 1]), (3,)),
        (TaskRows([2, 1]), ()),
        (TaskRows([2, 1], [[5, 4]]), (8, 5)),
        # Of two embedders, one packs the same number of subwords in another way.
        (TaskRows([1, 1], [[3, 4], [4, 3]]), (7, 5)),
    ],
)
def test_rows_that_cannot_be_told_apart(rows: TaskRows, shape: tuple[int, ...]) -> None:
    for method in (rows.sizes, rows.slices):
        with pytest.raises(NotSeparableError, match="classifier"):
            method(inputs(*shape), "classifier")


@pytest.mark.parametrize("shape", [(4, 5), (3,), ()])
def test_everything_belongs_to_a_single_task(shape: tuple[int, ...]) -> None:
    rows = TaskRows([2])
    number = shape[0] if shape else 1
    assert rows.sizes(inputs(*shape)) == [number]
    assert rows.slices(inputs(*shape)) == [slice(0, number)]


@pytest.mark.parametrize("sizes", [[3], [2, 2], [1, 3, 2]], ids=str)
@pytest.mark.parametrize("rest", [(), (4,), (3, 4)], ids=str)
def test_padding(sizes: list[int], rest: tuple[int, ...]) -> None:
    rows = torch.randn(sum(sizes), *rest)
    padding = Padding(sizes, rows.device)
    zeros, repeated = padding.pad(rows), padding.pad(rows, zeros=False)
    for of_task, again, own in zip(zeros, repeated, rows.split(sizes), strict=True):
        assert torch.equal(of_task[: len(own)], own)
        assert not of_task[len(own) :].any()
        # Padding is of the same task.
        assert all(any(torch.equal(row, each) for each in own) for row in again)
    assert torch.equal(padding.unpad(zeros), rows)
    assert padding.tasks.tolist() == [task for task, size in enumerate(sizes) for _ in range(size)]


def test_values_of_rows() -> None:
    values = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    found = Padding([1, 2], values.device).of_rows(values, torch.zeros(3, 5, 2))
    assert found.tolist() == [[[1.0, 2.0]], [[3.0, 4.0]], [[3.0, 4.0]]]
