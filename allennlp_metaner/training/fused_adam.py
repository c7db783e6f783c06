"""Adam in one pass over the parameters."""

from typing import Optional

import torch
from allennlp.training.optimizers import Optimizer, ParameterGroupsType, make_parameter_groups


@Optimizer.register("fused_adam")
class FusedAdam(Optimizer, torch.optim.AdamW):
    """
    PyTorch's fused Adam, or AdamW if there is weight decay. The same update as AllenNLP's "adam", which takes
    a dozen passes over the memory of every parameter; this one takes one.

    Registered as an `Optimizer` with name "fused_adam".

    # Parameters

    model_parameters : `list[tuple[str, torch.nn.Parameter]]`
    parameter_groups : `list[tuple[list[str], dict[str, Any]]]`, optional (default = `None`)
        AllenNLP's regexes and options.
    lr : `float`, optional (default = `1e-3`)
    betas : `tuple[float, float]`, optional (default = `(0.9, 0.999)`)
    eps : `float`, optional (default = `1e-8`)
    weight_decay : `float`, optional (default = `0.0`)
        Decoupled, as in AdamW.
    """

    def __init__(
        self,
        model_parameters: list[tuple[str, torch.nn.Parameter]],
        parameter_groups: Optional[ParameterGroupsType] = None,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            params=make_parameter_groups(model_parameters, parameter_groups),
            lr=lr,
            betas=(betas[0], betas[1]),
            eps=eps,
            weight_decay=weight_decay,
            fused=True,
        )
