"""The layers of a transformer, and what comes out of the lower ones."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Optional

import torch
from transformers import PreTrainedModel

HiddenStates = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""From subword ids and attention mask, each `(num_sentences, length)`, to `(num_sentences, length, dim)`."""


def transformer_layers(transformer: PreTrainedModel) -> Optional[torch.nn.ModuleList]:
    """The list of a transformer's layers, from the lowest up; `None`, if it keeps no such list."""
    number = transformer.config.num_hidden_layers
    lists = (module for module in transformer.modules() if isinstance(module, torch.nn.ModuleList))
    return next((layers for layers in lists if len(layers) == number), None)


def hidden_states_after(transformer: PreTrainedModel, num_layers: Optional[int] = None) -> HiddenStates:
    """
    What computes the hidden states after the lowest layers, and leaves out the others. Where the architecture
    does not allow that, it computes all of them.

    # Parameters

    transformer : `PreTrainedModel`
        Keeps its weights, which what is returned shares.
    num_layers : `int`, optional (default = `None`)
        From 1 to the number of layers. `None`: the final hidden states.

    # Returns

    `HiddenStates`
    """
    if num_layers is None:
        return partial(_final, transformer)
    whole = partial(_inner, transformer, num_layers)
    lower = _lower_part(transformer, num_layers)
    if lower is None:
        return whole
    short = partial(_final, lower)
    return short if _agree(whole, short, transformer.device) else whole


def _final(transformer: PreTrainedModel, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    hidden: torch.Tensor = transformer(input_ids=ids, attention_mask=mask)[0]
    return hidden


def _inner(
    transformer: PreTrainedModel, num_layers: int, ids: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    outputs = transformer(input_ids=ids, attention_mask=mask, output_hidden_states=True)
    hidden: torch.Tensor = outputs.hidden_states[num_layers]
    return hidden


def _lower_part(transformer: PreTrainedModel, num_layers: int) -> Optional[PreTrainedModel]:
    """The same model with the lowest layers only. Weights and layers are shared, not copied."""
    layers = transformer_layers(transformer)
    if layers is None:
        return None
    shared = {id(tensor): tensor for tensor in (*transformer.parameters(), *transformer.buffers())}
    lower: PreTrainedModel = copy.deepcopy(transformer, {**shared, id(layers): layers[:num_layers]})
    lower.config.num_hidden_layers = num_layers
    return lower


def _agree(whole: HiddenStates, short: HiddenStates, device: torch.device) -> bool:
    """On three subwords. Some architectures do more after the last layer, or have several lists of layers."""
    ids = torch.arange(3, device=device).unsqueeze(0)
    mask = torch.ones_like(ids)
    try:
        return torch.equal(whole(ids, mask), short(ids, mask))
    except Exception:
        # Whatever the architecture's own code says to fewer layers than it was made with.
        return False
