"""The reader of column files: every layout, random subsets, workers, and messages for bad input."""

from pathlib import Path
from typing import Any

import pytest
from allennlp.common import Params
from allennlp.common.checks import ConfigurationError
from allennlp.data import DatasetReader
from allennlp.data.dataset_readers.dataset_reader import WorkerInfo

from allennlp_metaner.data.column_reader import ColumnReader
from allennlp_metaner.data.tag_schemes import spans

FIXTURES = Path(__file__).parents[2] / "test_fixtures" / "data"

LAYOUTS: dict[str, tuple[dict[str, Any], int, list[str]]] = {
    "conll2003_en.iob1.txt": (
        {"scheme": "IOB1", "num_columns": 4},
        6,
        ["PER Maria Novak", "LOC Paris", "LOC Berlin"],
    ),
    "conll2003_de.latin1.txt": (
        {"encoding": "latin-1", "num_columns": 5},
        5,
        ["PER Jürgen Müller", "LOC Köln"],
    ),
    "conll2002_es.txt": ({"num_columns": 3}, 6, ["PER María Muñoz", "LOC La Coruña"]),
    "conll2002_es.latin1.txt": ({"encoding": "latin-1"}, 6, ["PER María Muñoz", "LOC La Coruña"]),
    "conll2002_nl.txt": ({}, 6, ["PER Marieke Jansen", "LOC Gent"]),
    "wikineural_es.conllu": ({"separator": "\t", "word_column": 1}, 5, ["PER Lucía Vega", "LOC Quito"]),
    "europeana_fr.bio": ({"scheme": "IO", "sentence_end": "."}, 6, ["PER Jules Morel", "LOC Lyon"]),
    "msra_zh.bio": ({"separator": "\t"}, 5, ["PER 王 小 明", "LOC 北 京"]),
    "zh_words.bio": ({}, 5, ["PER 王小明", "LOC 北京"]),
}


def read(path: Path, **arguments: Any) -> list[dict[str, list[str]]]:
    return [instance["metadata"].metadata for instance in ColumnReader(**arguments).read(path)]


def numbered(directory: Path, count: int) -> Path:
    """A file with `count` sentences of one word: 0, 1, 2 ..."""
    path = directory / "numbered.txt"
    path.write_text("".join(f"{i} O\n\n" for i in range(count)), encoding="utf-8")
    return path


def numbers(path: Path, **arguments: Any) -> list[int]:
    return [int(sentence["words"][0]) for sentence in read(path, **arguments)]


def write(directory: Path, content: str | bytes) -> Path:
    path = directory / "data.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout(name: str) -> None:
    arguments, count, entities = LAYOUTS[name]
    sentences = read(FIXTURES / name, **arguments)
    words, tags = sentences[0]["words"], sentences[0]["tags"]
    assert len(sentences) == count
    assert [" ".join([kind, *words[start : end + 1]]) for kind, start, end in spans(tags)] == entities
    # However the file writes it, an entity begins with B-.
    for sentence in sentences:
        assert all(sentence["tags"][start].startswith("B-") for _, start, _ in spans(sentence["tags"]))


def test_encodings_agree() -> None:
    latin1 = read(FIXTURES / "conll2002_es.latin1.txt", encoding="latin-1")
    assert latin1 == read(FIXTURES / "conll2002_es.txt")


def test_characters_of_words() -> None:
    assert read(FIXTURES / "zh_words.bio", characters=True) == read(FIXTURES / "msra_zh.bio", separator="\t")


def test_iob1_neighbours() -> None:
    sentence = read(FIXTURES / "conll2003_en.iob1.txt", scheme="IOB1")[4]
    assert sentence["words"][:3] == ["London", "City", "Council"]
    assert sentence["tags"][:3] == ["B-LOC", "B-LOC", "B-ORG"]


def test_label_map() -> None:
    tags = {
        tag
        for sentence in read(
            FIXTURES / "conll2002_es.txt",
            label_map={"MISC": "O", "LOC": "GPE"},
            entity_types=["PER", "ORG", "GPE"],
        )
        for tag in sentence["tags"]
    }
    assert tags == {"O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-GPE", "I-GPE"}


def test_instance_from_params() -> None:
    reader = DatasetReader.from_params(
        Params(
            {
                "type": "ner_columns",
                "token_indexers": {"pieces": {"type": "single_id"}},
                "label_map": {"MISC": "O"},
                "split": "train",
                "test_size": 0.5,
            }
        )
    )
    instances = list(reader.read(FIXTURES / "conll2002_es.txt"))
    instance = instances[0]
    words, tags = instance["metadata"]["words"], instance["metadata"]["tags"]
    assert len(instances) == 3
    assert [token.text for token in instance["tokens"]] == words
    assert [token.ent_type_ for token in instance["tokens"]] == instance["tags"].labels == tags
    assert instance["tags"]._label_namespace == "labels"
    assert list(instance["tokens"].token_indexers) == ["pieces"]


def test_text_to_instance_unlabelled() -> None:
    reader = ColumnReader()
    instance = reader.text_to_instance(["Paris", "."])
    assert set(instance.fields) == {"tokens", "metadata"}
    assert instance["metadata"].metadata == {"words": ["Paris", "."]}
    # Loader processes would otherwise send the indexers along with every instance.
    assert instance["tokens"]._token_indexers is None
    reader.apply_token_indexers(instance)
    assert list(instance["tokens"].token_indexers) == ["tokens"]


def test_odd_characters_stay_in_words(tmp_path: Path) -> None:
    words = ["2\u00a0000", "東\u3000京", "a\u0085b", "c\u2028d", "e\u000cf", "\u200b"]
    path = write(tmp_path, "".join(f"{word} \tO \r\n" for word in words) + " \t\r\nx O")
    assert [sentence["words"] for sentence in read(path)] == [words, ["x"]]


def test_separator_is_exact(tmp_path: Path) -> None:
    path = write(tmp_path, "New York\tB-LOC\n \tO\n")
    assert read(path, separator="\t")[0]["words"] == ["New York", " "]


def test_sentence_breaks(tmp_path: Path) -> None:
    path = write(tmp_path, "\n\na O\n-DOCSTART- -X-\nb O\n. O\n\n\nc O\n. O\n-DOCSTART-\n\n")
    assert [s["words"] for s in read(path)] == [["a"], ["b", "."], ["c", "."]]
    path = write(tmp_path, "a O\n. O\nM. O\nb O\n\nc O\n. O\n. O\n")
    assert [s["words"] for s in read(path, sentence_end=".")] == [["a", "."], ["M.", "b"], ["c", "."], ["."]]


def test_comments_before_a_sentence(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "# newdoc id = d\n# text = Ana em Lima\n1\tAna\tB-PER\t-\tx\n2\tem\tO\t-\tx\n\n"
        "# sent_id = 2\n\n# sent_id = 3\n1\t#\tO\t-\t-\n-DOCSTART-\n#\n1\tLima\tB-LOC\t-\tx\n",
    )
    found = read(path, word_column=1, tag_column=2, separator="\t", num_columns=5, comment_prefix="#")
    assert found == [
        {"words": ["Ana", "em"], "tags": ["B-PER", "O"]},
        {"words": ["#"], "tags": ["O"]},
        {"words": ["Lima"], "tags": ["B-LOC"]},
    ]


def test_comments_with_as_many_columns_as_tokens(tmp_path: Path) -> None:
    """In the layout of MultiCoNER, a comment has four columns too, but no tag."""
    path = write(
        tmp_path, "# id 11-a\tdomain=es\nana _ _ B-PER\n# _ _ O\n\n# id 11-b\tdomain=es\neva _ _ O\n"
    )
    assert [sentence["words"] for sentence in read(path, comment_prefix="#")] == [["ana", "#"], ["eva"]]


@pytest.mark.parametrize("arguments", [{}, {"num_columns": 2}, {"num_columns": 7}])
def test_comments_that_are_not_expected(tmp_path: Path, arguments: dict[str, int]) -> None:
    path = write(tmp_path, "# id 7 in the news today\nana B-PER\n")
    with pytest.raises(ConfigurationError, match='comment_prefix="#"'):
        read(path, **arguments)
    path = write(tmp_path, "ana B-PER\neva\n")
    with pytest.raises(ConfigurationError) as error:
        read(path, **arguments)
    assert "comment_prefix" not in str(error.value)


def test_a_word_that_looks_like_a_comment(tmp_path: Path) -> None:
    path = write(tmp_path, "# O\n\na O\n# O\n\n# O\nb O\n\n# id\nc O\n")
    # Without `num_columns`, nothing yet tells the first line from a comment.
    expected = [["a", "#"], ["#", "b"], ["c"]]
    assert [sentence["words"] for sentence in read(path, comment_prefix="#")] == expected
    found = read(path, comment_prefix="#", num_columns=2)
    assert [sentence["words"] for sentence in found] == [["#"], *expected]
    # A comment inside of a sentence is none, and cannot be a word here.
    path = write(tmp_path, "a O\n# a comment\nb O\n")
    with pytest.raises(ConfigurationError, match=r"data\.txt:2: 3 columns in '# a comment'"):
        read(path, comment_prefix="#")


def test_comments_after_a_token_that_ends_a_sentence(tmp_path: Path) -> None:
    path = write(tmp_path, "a O\n. O\n# the next one\nb O\n")
    assert [s["words"] for s in read(path, comment_prefix="#", sentence_end=".")] == [["a", "."], ["b"]]


@pytest.mark.parametrize(
    ("total", "fraction", "kept"),
    [(1000, 0.01, 10), (150, 0.05, 8), (20, 0.024, 1), (3, 0.01, 1), (7, 1.0, 7)],
)
def test_fraction(tmp_path: Path, total: int, fraction: float, kept: int) -> None:
    path = numbered(tmp_path, total)
    chosen = numbers(path, fraction=fraction, seed=5)
    assert len(set(chosen)) == len(chosen) == kept
    assert chosen == sorted(chosen) == numbers(path, fraction=fraction, seed=5)


def test_fraction_depends_on_seed(tmp_path: Path) -> None:
    path = numbered(tmp_path, 200)
    subsets = {tuple(numbers(path, fraction=0.05, seed=seed)) for seed in range(5)}
    assert len(subsets) == 5


@pytest.mark.parametrize(
    ("total", "test_size", "expected"), [(11902, 2375, 2375), (20, 0.25, 5), (10, 0.25, 3)]
)
def test_split(tmp_path: Path, total: int, test_size: float, expected: int) -> None:
    path = numbered(tmp_path, total)
    train = numbers(path, split="train", test_size=test_size)
    test = numbers(path, split="test", test_size=test_size)
    assert len(test) == expected
    assert sorted(train + test) == list(range(total))
    assert train == sorted(train) and test == sorted(test)
    assert test != numbers(path, split="test", test_size=test_size, split_seed=14)


def test_subsets_share_test_set(tmp_path: Path) -> None:
    path = numbered(tmp_path, 100)
    test = set(numbers(path, split="test", test_size=0.3))
    for seed in range(5):
        train = set(numbers(path, split="train", test_size=0.3, fraction=0.2, seed=seed))
        assert len(train) == 14 and not train & test


def test_workers_share_the_file(tmp_path: Path) -> None:
    path = numbered(tmp_path, 50)
    parts = []
    for worker in range(3):
        reader = ColumnReader(fraction=0.5, seed=2)
        reader._set_worker_info(WorkerInfo(num_workers=3, id=worker))
        instances = list(reader.read(path))
        assert all(instance["tokens"]._token_indexers is None for instance in instances)
        parts.extend(int(instance["metadata"]["words"][0]) for instance in instances)
    assert sorted(parts) == numbers(path, fraction=0.5, seed=2)


@pytest.mark.parametrize(
    ("content", "arguments", "line", "message"),
    [
        ("a O\n\nb x O\n", {}, 3, ["3 columns", "2 by the first line with a token, 1", "separator=None"]),
        ("a O\n", {"num_columns": 4}, 1, ["2 columns", "4 by the argument num_columns", "'a O'"]),
        ("a\tO\nb O\n", {"separator": "\t"}, 2, ["1 columns", "separator='\\t'"]),
        ("a O\n", {"word_column": 2}, 1, ["word_column=2", "from -2 to 1"]),
        ("a O\n", {"tag_column": -3}, 1, ["tag_column=-3", "from -2 to 1"]),
        ("\tO\n", {"separator": "\t"}, 1, ["the word is empty", "word_column"]),
        ("a O\nb PER\n", {}, 2, ["'PER' is not a tag of scheme BIO", "'B-TYPE'", "tag_column=-1", "IOB1"]),
        ("a B-PER\n", {"scheme": "IO"}, 1, ["'B-PER' is not a tag of scheme IO", "'I-TYPE'", "IOB1"]),
        (
            "a B-ANIM\n",
            {"entity_types": ["PER"]},
            1,
            ["'B-ANIM'", "entity_types=['PER']", 'label_map={"ANIM": "O"}'],
        ),
        ("a B-A\n", {"entity_types": ["A"], "label_map": {"A": "B"}}, 1, ["'B-A'", "entity_types=['A']"]),
        (b"a O\n\n\xfc O\n", {}, 3, ["encoding='utf-8'", "perhaps 'latin-1'"]),
        (b"a O\n", {"encoding": "utf-16"}, 1, ["encoding='utf-16'", "perhaps 'utf-8'"]),
    ],
    ids=[
        "first_line",
        "num_columns",
        "separator",
        "word_column",
        "tag_column",
        "empty",
        "tag",
        "io_tag",
        "type",
        "mapped",
        "utf8",
        "utf16",
    ],
)
def test_bad_line(
    tmp_path: Path, content: str, arguments: dict[str, Any], line: int, message: list[str]
) -> None:
    path = write(tmp_path, content)
    with pytest.raises(ConfigurationError) as error:
        read(path, **arguments)
    assert str(error.value).startswith(f"{path}:{line}: ")
    for part in message:
        assert part in str(error.value)


@pytest.mark.parametrize("content", ["", "\n \n", "-DOCSTART- -X- O\n\n"], ids=["empty", "blank", "docstart"])
def test_no_sentence(tmp_path: Path, content: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(ConfigurationError, match=r"no sentence found.*Check the path") as error:
        read(path)
    assert str(path) in str(error.value)


def test_missing_file(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.txt", tmp_path):
        with pytest.raises(ConfigurationError, match=r"cannot be read.*Check the path") as error:
            read(path)
        assert str(error.value).startswith(str(path))


@pytest.mark.parametrize("test_size", [10, 0.01, 0.99])
def test_split_needs_both_parts(tmp_path: Path, test_size: float) -> None:
    path = numbered(tmp_path, 10)
    with pytest.raises(
        ConfigurationError, match=f"test_size={test_size} .* 10 sentences.* from 1 to 9"
    ) as error:
        read(path, split="train", test_size=test_size)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scheme": "BMES"}, "scheme='BMES' is not one of IO, IOB1, BIO"),
        ({"encoding": "utf-9"}, "encoding='utf-9' is not known.*'latin-1'"),
        ({"separator": ""}, "separator is empty. Give"),
        ({"fraction": 0}, "fraction=0 is not above 0 and at most 1. Give a share"),
        ({"fraction": 5}, "fraction=5 is not above 0 and at most 1. Give a share"),
        ({"split": "dev", "test_size": 1}, "split='dev' is not one of 'train', 'test'"),
        ({"split": "test"}, "split='test' and test_size=None go together. Give both"),
        ({"test_size": 5}, "split=None and test_size=5 go together. Give both"),
        ({"split": "test", "test_size": 0}, "test_size=0 is neither a number of sentences"),
        ({"split": "test", "test_size": 1.5}, "test_size=1.5 is neither .* nor a share between 0 and 1"),
        ({"label_map": {"B-MISC": "O"}}, "label_map has 'B-MISC': 'O'.*without prefix"),
        ({"label_map": {"MISC": ""}}, "label_map has 'MISC': ''.*without prefix"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_argument(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        ColumnReader(**arguments)


def test_bad_tags_of_instance() -> None:
    with pytest.raises(ConfigurationError, match="2 words but 1 tags: give one BIO tag for each word"):
        ColumnReader().text_to_instance(["a", "b"], ["O"])
