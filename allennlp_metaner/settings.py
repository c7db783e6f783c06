"""
Where the shipped configs find things, in one place.

Jsonnet reads environment variables (`std.extVar`), but has no default for one that is not set. Importing the
package sets those that are missing.
"""

import os

DEFAULTS = {
    # A model on the hub, or a directory.
    "METANER_ENCODER": "bert-base-multilingual-cased",
    # The folder of the corpora: conll2003/eng.train and so on, see training_configs/lib/data.libsonnet.
    "METANER_DATA": "data",
    # The weights that low-resource fine-tuning starts from.
    "METANER_WEIGHTS": "runs/meta_en/best.th",
    "METANER_SEED": "13370",
}
"""Environment variables that the shipped configs read, and their defaults."""


def set_defaults() -> None:
    """Set the environment variables of [`DEFAULTS`](#defaults) that are not set."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
