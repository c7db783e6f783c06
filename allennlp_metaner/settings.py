"""
Where the shipped configs find things, in one place.

Jsonnet reads environment variables (`std.extVar`), but has no default for one that is not set. Importing the
package sets those that are missing.
"""

import os

DEFAULTS = {
    # A model on the hub, or a directory.
    "METANER_ENCODER": "bert-base-multilingual-cased",
    # The folder of the corpora: conll2003/eng.train and so on, see training_configs/lib/corpora.libsonnet.
    "METANER_DATA": "data",
    # Low resource: the run whose model is fine-tuned, and the corpus (a name in corpora.libsonnet).
    "METANER_START": "runs/meta_en",
    "METANER_TARGET": "conll2002_es",
    # The number of meta updates, the tasks (or, for the base model, sentences) of an update, and K.
    "METANER_UPDATES": "3000",
    # Of the full method: meta updates between two validations, unless there are fewer in all.
    "METANER_UPDATES_PER_VALIDATION": "300",
    "METANER_BATCH_SIZE": "32",
    "METANER_NEIGHBORS": "2",
    "METANER_SEED": "13370",
}
"""Environment variables that the shipped configs read, and their defaults."""


def set_defaults() -> None:
    """Set the environment variables of [`DEFAULTS`](#defaults) that are not set."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
