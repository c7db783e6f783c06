"""
The whole method in minutes, `make demo`: builds a small multilingual encoder, fine-tunes it on 521 English
sentences, goes on with meta-training, and labels Spanish, Dutch, German, French and Chinese sentences, with
and without adaptation, and Portuguese and Danish ones, on which settings were chosen. Then what the model
says of raw text in the first five languages teaches a student, which labels them as well.

It writes to `demo/output` (started over by every run) and `.encoders/demo` (kept).
"""

import os
import shutil
import sys
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segmentation import Words, running_text, segment, spread

if TYPE_CHECKING:
    from allennlp.models.archival import Archive
    from allennlp.predictors import Predictor
    from allennlp.training import TrainerCallback
    from transformers import PreTrainedTokenizerFast

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "demo" / "data"
OUTPUT = ROOT / "demo" / "output"
ENCODER = ROOT / ".encoders" / "demo"

TARGETS = ("spanish", "dutch", "german", "french", "chinese")
DEVELOPMENT = ("portuguese", "danish")
"""Settings are chosen on these languages, and on no other but English."""
WITHOUT_MISC = ("french", "chinese", *DEVELOPMENT)
SYSTEMS = ("base", "meta-trained", "and adapted")
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


def train(name: str) -> "Archive":
    """Train as `allennlp train demo/NAME.jsonnet` does, and load what that leaves behind."""
    from allennlp.commands.train import train_model
    from allennlp.common import Params
    from allennlp.models import load_archive

    overrides = {"trainer.callbacks": [{"type": "demo_progress"}]}
    params = Params.from_file(f"demo/{name}.jsonnet", overrides)
    train_model(params, OUTPUT / name, force=True, file_friendly_logging=True)
    return load_archive(OUTPUT / name)


def print_scores(columns: Sequence[str], scores: dict[str, list[float]]) -> None:
    """A table of F1: the targets, then the development languages, each with their average."""
    groups = {"targets": TARGETS, "development languages, on which settings are chosen": DEVELOPMENT}
    say(f"\n{'F1':<16}{''.join(f'{column:>15}' for column in columns)}")
    for heading, languages in groups.items():
        say(heading)
        rows = {language: scores[language] for language in languages}
        rows["average"] = [sum(column) / len(column) for column in zip(*rows.values(), strict=True)]
        for name, row in rows.items():
            note = "   predicted MISC counts as O" if name in WITHOUT_MISC else ""
            say(f"  {name:<14}{''.join(f'{f1:15.1f}' for f1 in row)}{note}")


class LabelledSentences:
    """The labelled sentences of a language: the words that are tagged, and the tokens that are scored."""

    def __init__(self, language: str, tokenizer: "PreTrainedTokenizerFast") -> None:
        from scoring import read

        part = "dev" if language in DEVELOPMENT else "test"
        tokens, self.gold = read(DATA / f"{language}.{part}.bio")
        self.without_misc = language in WITHOUT_MISC
        self.words: list[Words] = [segment(sentence, tokenizer) for sentence in tokens]

    def label(self, predictor: "Predictor") -> tuple[float, list[dict[str, Any]]]:
        """F1, and what the predictor says of every sentence."""
        from scoring import f1

        inputs = [{"words": ["".join(word) for word in sentence]} for sentence in self.words]
        outputs = predictor.predict_batch_json(inputs)
        tags = [spread(words, output["tags"]) for words, output in zip(self.words, outputs, strict=True)]
        return f1(tags, self.gold, self.without_misc), outputs


def label_all(
    base: "Archive", meta: "Archive", tests: dict[str, LabelledSentences]
) -> tuple[dict[str, list[float]], dict[str, list[dict[str, Any]]]]:
    """
    Print F1 in every language. Returns it, of the base model and of the meta-trained one without and with
    adaptation, and the examples: what the adapting predictor says of them.
    """
    from allennlp.predictors import Predictor

    adapting = Predictor.from_archive(meta, "adapting")
    plain = [Predictor.from_archive(model, "adapting", extra_args={"adapt": False}) for model in (base, meta)]
    scores, examples = {}, {}
    for language, test in tests.items():
        after, outputs = test.label(adapting)
        scores[language] = [*(test.label(predictor)[0] for predictor in plain), after]
        examples[language] = [outputs[number] for number in EXAMPLES.get(language, ())]
    print_scores(SYSTEMS, scores)
    return scores, examples


def teach(
    tests: dict[str, LabelledSentences], scores: dict[str, list[float]], text: list[list[str]], tokenizer: Any
) -> None:
    """Train a student on what the model says of raw text, and print its F1 beside the others."""
    import student
    from allennlp.predictors import Predictor

    from allennlp_metaner.commands.pseudo_label import pseudo_label

    words, labels = OUTPUT / "text.jsonl", OUTPUT / "pseudo_labels"
    student.write_words(words, text, tokenizer)
    say(f"\nThe model labels {len(text)} raw sentences of demo/data/*.txt, not adapted", timed=True)
    pseudo_label([str(OUTPUT / "meta")], [str(words)], labels, adapt=False)
    say("A student learns from that", timed=True)
    archive = student.train(OUTPUT / "meta", labels, OUTPUT / "student")
    predictor = Predictor.from_archive(archive, "adapting")
    with_student = {
        language: [*scores[language], test.label(predictor)[0]] for language, test in tests.items()
    }
    print_scores((*SYSTEMS, "student"), with_student)


def show(language: str, output: dict[str, Any]) -> None:
    """Print a sentence, its predicted entities, and the English sentences that the model was adapted to."""
    between = "" if language == "chinese" else " "
    say(f"\n{language.capitalize()}: {between.join(output['words'])}")
    for entity in output["entities"]:
        say(f"    {entity['label']:<5}{entity['text'] if between else entity['text'].replace(' ', '')}")
    for neighbor in output["support"]:
        say(f"    adapted to ({neighbor['similarity']:.3f})  {' '.join(neighbor['words'])}")


def main() -> None:
    """Build, train, label, show, teach."""
    os.chdir(ROOT)
    shutil.rmtree(OUTPUT, ignore_errors=True)
    OUTPUT.mkdir(parents=True)
    os.environ.update(METANER_ENCODER=str(ENCODER), HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    say("Loading AllenNLP; its log goes to demo/output/log.txt", timed=True)
    with logged(OUTPUT / "log.txt"):
        import student
        from scoring import read
        from transformers import AutoTokenizer

        from allennlp_metaner.tools.build_small_encoder import build_small_encoder

        say("Building the encoder in .encoders/demo, unless it is there", timed=True)
        text = [tokens for language in TARGETS for tokens in student.raw_sentences(DATA / f"{language}.txt")]
        running = OUTPUT / "running.txt"
        spoken = [*read(DATA / "chinese.test.bio")[0], *text]
        running.write_text("\n".join(map(running_text, spoken)), encoding="utf-8")
        build_small_encoder(ENCODER, [*sorted(DATA.glob("*.bio")), running])
        progress()
        say("Fine-tuning on demo/data/english.train.bio: the base model", timed=True)
        base = train("base")
        say("Meta-training, from the base model", timed=True)
        os.environ["METANER_START"] = str(OUTPUT / "base")
        meta = train("meta")
        say("Labelling all languages", timed=True)
        tokenizer = AutoTokenizer.from_pretrained(str(ENCODER))
        tests = {language: LabelledSentences(language, tokenizer) for language in (*TARGETS, *DEVELOPMENT)}
        scores, examples = label_all(base, meta, tests)
        for language, outputs in examples.items():
            for output in outputs:
                show(language, output)
        teach(tests, scores, text, tokenizer)
        say(f"\nDone in {time.monotonic() - START:.0f} s ({time.process_time():.0f} s of processor time)")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nInterrupted; `make demo` starts over")
