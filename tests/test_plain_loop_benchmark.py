"""The plain loop that the benchmark of BERT-base size compares with computes the same gradients."""

from collections.abc import Callable
from types import ModuleType

import torch

from allennlp_metaner.meta.meta_gradients import FirstOrderMaml
from allennlp_metaner.nn.parameters import trainable_parameters


def test_same_gradients_and_weights_kept(import_benchmark: Callable[[str], ModuleType]) -> None:
    plain_loop, random_models = map(import_benchmark, ("plain_loop", "random_models"))
    model = random_models.random_tagger(hidden=64, layers=4, vocabulary=1000).double().eval()
    tasks, parameters = random_models.random_tasks(3, length=5), trainable_parameters(model)
    before = [parameter.detach().clone() for _, parameter in parameters]
    found = plain_loop.meta_gradient(model, tasks)
    assert all(torch.equal(parameter, kept) for (_, parameter), kept in zip(parameters, before, strict=True))
    expected = FirstOrderMaml()(model, parameters, tasks, seed=0).gradient
    assert all(gradient.abs().max() > 0 for gradient in found)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
