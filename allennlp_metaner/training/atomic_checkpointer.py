"""Checkpoints that a killed run never leaves half-written."""

import glob
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from allennlp.training import Checkpointer, Trainer

from allennlp_metaner.atomic import whole_file


@Checkpointer.register("atomic")
class AtomicCheckpointer(Checkpointer):
    """
    AllenNLP's `Checkpointer` writes model and training state straight to their final names, so a run that is
    killed while it writes (out of time, disk or memory) leaves a file, or half of one, that makes `--recover`
    fail. This one writes to temporary names and renames; and the model state, by which checkpoints are found,
    comes last. So a checkpoint that is found is complete.

    What a killed run left behind is removed when the next checkpoint is saved.

    Registered as a `Checkpointer` with name "atomic".

    # Parameters

    The same as those of `Checkpointer`.
    """

    def save_checkpoint(self, trainer: Trainer) -> None:
        """
        Save model and training state, and remove checkpoints that are too old, see `Checkpointer`.
        """
        if self._serialization_dir is None:
            return
        state = trainer.get_checkpoint_state()
        if state is not None:
            self._remove_leftovers()
            when = state.trainer_state["epochs_completed"], state.trainer_state["batches_in_epoch_completed"]
            if when not in self._find_all_checkpoints():
                _save(state.trainer_state, self._training_state_path(*when))
                _save(state.model_state, self._model_state_path(*when))
        # This finds both files there, writes neither, and does the rest.
        super().save_checkpoint(trainer)

    def _find_all_checkpoints(self) -> set[tuple[int, int]]:
        found: set[tuple[int, int]] = super()._find_all_checkpoints()
        return {when for when in found if os.path.isfile(self._training_state_path(*when))}

    def _remove_leftovers(self) -> None:
        """Temporary files, and one half of a checkpoint without the other; of this worker only."""
        complete = self._find_all_checkpoints()
        suffix = f"_w{self._rank}.th" if self.state_is_sharded else ".th"
        for name, parse in (
            ("model_state", self._parse_model_state_path),
            ("training_state", self._parse_training_state_path),
        ):
            pattern = os.path.join(self._serialization_dir, f"{name}_e*_b*{suffix}")
            for path in glob.glob(pattern):
                if parse(path) not in complete:
                    os.remove(path)
            # Those of `whole_file`.
            for folder in glob.glob(os.path.join(self._serialization_dir, f".{name}_e*_b*{suffix}.*.tmp")):
                shutil.rmtree(folder, ignore_errors=True)


def _save(state: dict[str, Any], path: str) -> None:
    advice = "Make room; `allennlp train --recover` goes on from the checkpoint before"
    with whole_file(Path(path), advice) as temporary, temporary.open("wb") as file:
        torch.save(state, file)
