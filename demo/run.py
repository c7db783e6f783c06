"""
The whole method in minutes, `make demo`: builds a small multilingual encoder, meta-trains on 521 English
sentences, and labels Spanish, Dutch, German, French and Chinese ones, with and without adaptation.

It writes to `demo/output` (started over by every run) and `.encoders/demo` (kept).
"""

import os
import shutil
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segmentation import running_text, segment, spread

if TYPE_CHECKING:
    from allennlp.models.archival import Archive
    from allennlp.training import TrainerCallback

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "demo" / "data"
OUTPUT = ROOT / "demo" / "output"
ENCODER = ROOT / ".encoders" / "demo"

TARGETS = ("spanish", "dutch", "german", "french", "chinese")
WITHOUT_MISC = ("french", "chinese")
EXAMPLES = {"spanish": (0, 7), "german": (0, 7), "chinese": (0, 7)}
"""Which sentences of a test file are shown, counted from 0: fixed ones, not those that went well."""

START = time.monotonic()


def say(text: str = "", timed: bool = False) -> None:
    """Print to the terminal, also while all other output goes to the log."""
    seconds = f"[{time.monotonic() - START:3.0f} s] " if timed else ""
    print(f"{seconds}{text}", file=sys.__stdout__, flush=True)


@contextmanager
def logged(path: Path) -> Iterator[None]:
    """What AllenNLP and other libraries print goes to a file; a failure is told in short."""
    warnings.simplefilter("ignore")
    with path.open("w", encoding="utf-8") as log, redirect_stdout(log), redirect_stderr(log):
        try:
            yield
        except Exception as error:
            # AllenNLP's own handler for these would write to the log alone.
            traceback.print_exc()
            sys.exit(f"The demo failed: {error}\nIts log is {path}")


def progress() -> type["TrainerCallback"]:
    """A callback that reports validations; in a function, since AllenNLP must be imported under `logged`."""
    from allennlp.training import TrainerCallback

    @TrainerCallback.register("demo_progress")
    class Progress(TrainerCallback):
        def on_epoch(self, trainer: Any, metrics: dict[str, Any], epoch: int, **kwargs: Any) -> None:
            f1 = 100 * metrics["validation_f1-measure-overall"]
            say(f"  epoch {epoch + 1}: F1 on English dev {f1:.1f}", timed=True)

    return Progress


def train() -> "Archive":
    """Meta-train, as `allennlp train demo/meta.jsonnet` does, and load what that leaves behind."""
    from allennlp.commands.train import train_model
    from allennlp.common import Params
    from allennlp.models import load_archive

    progress()
    overrides = {"trainer.callbacks": [{"type": "demo_progress"}]}
    params = Params.from_file("demo/meta.jsonnet", overrides)
    train_model(params, OUTPUT / "model", force=True, file_friendly_logging=True)
    say("Trained; loading the model", timed=True)
    return load_archive(OUTPUT / "model")


def label_targets(archive: "Archive") -> dict[str, list[dict[str, Any]]]:
    """Print F1 in every language, and return the examples: what the adapting predictor says of them."""
    from allennlp.predictors import Predictor
    from scoring import f1, read
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(ENCODER))
    adapting = Predictor.from_archive(archive, "adapting")
    plain = Predictor.from_archive(archive, "adapting", extra_args={"adapt": False})
    say("\nF1            without adaptation   with adaptation")
    examples = {}
    for language in TARGETS:
        tokens, gold = read(DATA / f"{language}.test.bio")
        words = [segment(sentence, tokenizer) for sentence in tokens]
        inputs = [{"words": ["".join(word) for word in sentence]} for sentence in words]
        outputs = [predictor.predict_batch_json(inputs) for predictor in (plain, adapting)]
        without_misc = language in WITHOUT_MISC
        before, after = (
            f1([spread(w, o["tags"]) for w, o in zip(words, found, strict=True)], gold, without_misc)
            for found in outputs
        )
        note = "   predicted MISC counts as O" if without_misc else ""
        say(f"{language:<13} {before:18.1f} {after:17.1f}{note}")
        examples[language] = [outputs[1][number] for number in EXAMPLES.get(language, ())]
    return examples


def show(language: str, output: dict[str, Any]) -> None:
    """Print a sentence, its predicted entities, and the English sentences that the model was adapted to."""
    between = "" if language == "chinese" else " "
    say(f"\n{language.capitalize()}: {between.join(output['words'])}")
    for entity in output["entities"]:
        say(f"    {entity['label']:<5}{entity['text'] if between else entity['text'].replace(' ', '')}")
    for neighbor in output["support"]:
        say(f"    adapted to ({neighbor['similarity']:.3f})  {' '.join(neighbor['words'])}")


def main() -> None:
    """Build, train, label, show."""
    os.chdir(ROOT)
    shutil.rmtree(OUTPUT, ignore_errors=True)
    OUTPUT.mkdir(parents=True)
    os.environ.update(METANER_ENCODER=str(ENCODER), HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    say("Loading AllenNLP; its log goes to demo/output/log.txt", timed=True)
    with logged(OUTPUT / "log.txt"):
        from scoring import read

        from allennlp_metaner.tools.build_small_encoder import build_small_encoder

        say("Building the encoder in .encoders/demo, unless it is there", timed=True)
        running = OUTPUT / "chinese.txt"
        running.write_text("\n".join(map(running_text, read(DATA / "chinese.test.bio")[0])), encoding="utf-8")
        build_small_encoder(ENCODER, [*sorted(DATA.glob("*.bio")), running])
        say("Meta-training on demo/data/english.train.bio", timed=True)
        archive = train()
        for language, outputs in label_targets(archive).items():
            for output in outputs:
                show(language, output)
        say(f"\nDone in {time.monotonic() - START:.0f} s ({time.process_time():.0f} s of processor time)")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nInterrupted; `make demo` starts over")
