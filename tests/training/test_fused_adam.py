"""The fused optimiser against AllenNLP's own."""

import copy

import pytest
import torch
from allennlp.common import Params
from allennlp.training.optimizers import Optimizer

from allennlp_metaner.training.fused_adam import FusedAdam


@pytest.mark.parametrize(("other", "weight_decay"), [("adam", 0.0), ("adamw", 0.01)])
def test_same_update(other: str, weight_decay: float) -> None:
    torch.manual_seed(0)
    ours = torch.nn.Linear(4, 3).double()
    theirs = copy.deepcopy(ours)
    settings = {"lr": 0.1, "weight_decay": weight_decay, "parameter_groups": [[["bias"], {"lr": 0.01}]]}
    pairs = []
    for kind, model in (("fused_adam", ours), (other, theirs)):
        parameters = list(model.named_parameters())
        params = Params({"type": kind, **copy.deepcopy(settings)})
        pairs.append((Optimizer.from_params(params, model_parameters=parameters), model))
    assert isinstance(pairs[0][0], FusedAdam)
    for step in range(3):
        inputs = torch.randn(5, 4, dtype=torch.float64)
        for optimizer, model in pairs:
            optimizer.zero_grad()
            model(inputs).pow(2 + step % 2).sum().backward()
            optimizer.step()
    for name, value in ours.state_dict().items():
        torch.testing.assert_close(value, theirs.state_dict()[name], rtol=1e-12, atol=1e-12)
