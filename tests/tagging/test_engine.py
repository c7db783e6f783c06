"""The engine: order, batches, errors; every way gives the same."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from allennlp.common.checks import ConfigurationError

from allennlp_metaner.tagging.documents import Source
from allennlp_metaner.tagging.engine import BATCHES_AHEAD, WORDS_PER_SENTENCE, Engine
from tests.tagging.conftest import CapitalsBackend

TEXTS = [
    "yesterday Anna Novak met Peter. then she left.",
    "",
    "\n\t ",
    "rain in Paris.",
    "a Bank\r\n\r\nthe City of Maria Smith",
]


def test_results_come_in_order_with_offsets_in_the_document(backend: CapitalsBackend) -> None:
    documents = list(Engine(backend).pipe(TEXTS))
    assert [document.text for document in documents] == TEXTS
    found = [[(entity.text, entity.label) for entity in document.entities] for document in documents]
    assert found == [
        [("Anna Novak", "PER"), ("Peter", "LOC")],
        [],
        [],
        [("Paris", "LOC")],
        [("Bank", "LOC"), ("City", "LOC"), ("Maria Smith", "PER")],
    ]
    for document in documents:
        assert document.error is None
        for entity in document.entities:
            assert document.text[entity.start : entity.end] == entity.text
        for sentence in document.sentences:
            for word, (start, end) in zip(sentence.words, sentence.offsets, strict=True):
                assert document.text[start:end] == word
    assert [len(document.sentences) for document in documents] == [1, 0, 0, 1, 2]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_batches_make_no_difference(backend: CapitalsBackend, batch_size: int) -> None:
    texts = [f"{'word ' * (7 * n % 11)}Name{n} ends. And More{n}." for n in range(40)]
    documents = list(Engine(backend).pipe(texts, batch_size))
    assert [document.text for document in documents] == texts
    assert [document.entities[-1].text for document in documents] == [f"And More{n}" for n in range(40)]
    assert max(map(len, backend.batches)) <= batch_size
    if batch_size == 3:
        # Of like length, unlike the texts.
        lengths = [len(words) for batch in backend.batches[:BATCHES_AHEAD] for words in batch]
        assert lengths == sorted(lengths)


def test_long_sentences_are_fewer_in_a_batch(backend: CapitalsBackend) -> None:
    long = " ".join(["word"] * WORDS_PER_SENTENCE)
    list(Engine(backend).pipe(["short"] * 4 + [f"{long} {long}"] * 4, batch_size=4))
    assert [len(batch) for batch in backend.batches] == [4, 2, 2]


def test_texts_are_read_as_they_are_needed(backend: CapitalsBackend) -> None:
    read = 0

    def texts() -> Iterator[str]:
        nonlocal read
        for read in range(1, 1000):
            yield f"text {read}."

    results = Engine(backend).pipe(texts(), batch_size=2)
    assert next(results).text == "text 1."
    assert read == 2 * BATCHES_AHEAD


def test_a_document_of_many_batches(backend: CapitalsBackend) -> None:
    text = "Anna left. " * 500
    (document,) = Engine(backend).pipe([text], batch_size=4)
    assert [entity.start for entity in document.entities] == [11 * n for n in range(500)]


def test_errors_name_the_document_and_end_nothing(backend: CapitalsBackend) -> None:
    texts = ["Anna won.", Source("it went boom.", name="b.txt", meta={"id": 7}), 3, ["a", 1], "Peter won."]
    documents = list(Engine(backend).pipe(texts))  # type: ignore[arg-type]
    assert [[entity.text for entity in document.entities] for document in documents] == [
        ["Anna"],
        [],
        [],
        [],
        ["Peter"],
    ]
    first, second, third, fourth, last = (document.error for document in documents)
    assert first is None and last is None
    assert second == ("b.txt: sentence 1, 'it went boom .', cannot be labelled (RuntimeError: out of order)")
    assert documents[1].meta == {"id": 7} and documents[1].text == "it went boom."
    assert third is not None and third.startswith("document 3: a document is 3, but should be")
    assert fourth is not None and fourth.startswith("document 4: 1 in ['a', 1] is not a word.")
    assert [document.to_dict().get("error") for document in documents] == [None, second, third, fourth, None]


@pytest.mark.parametrize(
    ("text", "message"),
    [("all boom", "document 2: sentence 1, 'all boom', .*out of order"), (3, "document 2: a")],
)
def test_errors_are_raised_if_asked(backend: CapitalsBackend, text: str, message: str) -> None:
    results = Engine(backend).pipe(["Anna", text], fail_fast=True)
    with pytest.raises(ConfigurationError, match=message):
        list(results)


def test_a_threshold_leaves_out_what_is_less_sure(backend: CapitalsBackend) -> None:
    (document,) = Engine(backend, threshold=0.2).pipe(["Anna met a Man of Peter Smith"])
    assert [(entity.text, entity.confidence) for entity in document.entities] == [
        ("Anna", 1.0),
        ("Man", 0.25),
    ]
    assert document.sentences[0].tags == ["B-LOC", "O", "O", "B-LOC", "O", "O", "O"]


def test_sentences_as_lines(backend: CapitalsBackend) -> None:
    (document,) = Engine(backend, sentences="lines").pipe(["One. Two.\nThree"])
    assert [sentence.words for sentence in document.sentences] == [["One", ".", "Two", "."], ["Three"]]


@pytest.mark.parametrize("arguments", [{"threshold": 1.1}, {"threshold": -0.1}, {"sentences": "words"}])
def test_bad_arguments(backend: CapitalsBackend, arguments: dict[str, object]) -> None:
    (name,) = arguments
    with pytest.raises(ConfigurationError, match=f"{name}=.* must be"):
        Engine(backend, **arguments)  # type: ignore[arg-type]


def test_bad_batch_size(backend: CapitalsBackend) -> None:
    with pytest.raises(ConfigurationError, match="batch_size=0 must be positive"):
        Engine(backend).pipe(["a"], batch_size=0)


def test_several_threads(backend: CapitalsBackend) -> None:
    engine = Engine(backend)
    expected = [document.to_dict() for document in engine.pipe(TEXTS)]
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda _: [document.to_dict() for document in engine.pipe(TEXTS)], range(40))
        assert all(result == expected for result in found)
