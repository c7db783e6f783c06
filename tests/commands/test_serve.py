"""`allennlp metaner-serve` as a process of its own, with a real archive: right answers, graceful end."""

import re
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from allennlp.common.checks import ConfigurationError

from allennlp_metaner import NameTagger
from allennlp_metaner.serving.server import bound_socket
from allennlp_metaner.serving.taggers import load_taggers
from tests.commands.conftest import Command
from tests.processes import RunningProcess, allennlp

ROOT = Path(__file__).parents[2]
TEXTS = [
    "Maria Novak visited Paris on Monday.",
    "«Peter Smith» won the London Open, ¿no?\n\nAnna Torres and Acme: The Bank of Madrid said 4 percent.",
    "王小明访问了北京。",
    "",
    "It rained on Monday. Shares of Acme fell in Berlin, Ton Landia said.",
]
COPIES = 200
Names = list[tuple[str, str, int, int]]


@pytest.fixture(scope="module")
def server(
    tiny_run: SimpleNamespace,
    running_process: type[RunningProcess],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[SimpleNamespace]:
    process = running_process(
        *(allennlp, "metaner-serve", str(tiny_run.archive), "--port", "0"),
        folder=ROOT,
        output=tmp_path_factory.mktemp("server") / "printed",
    )
    try:
        url = process.wait_for(partial(re.search, r"at (http://127\.0\.0\.1:\d+) until Ctrl-C"))[1]
        # It connects once the server listens.
        with httpx.Client(base_url=url, transport=httpx.HTTPTransport(retries=8)) as client:
            assert client.get("/health").json()["adapt_choices"] == [False, True]
        with httpx.Client(base_url=url, timeout=300) as client:
            yield SimpleNamespace(client=client, process=process)
    finally:
        process.kill()


def ask(server: SimpleNamespace, text: str, adapt: bool) -> Names:
    answer = server.client.post("/predict", json={"text": text, "adapt": adapt})
    assert answer.status_code == 200, answer.text
    (document,) = answer.json()["documents"]
    assert document["text"] == text
    return [(name["text"], name["label"], name["start"], name["end"]) for name in document["entities"]]


@pytest.fixture(scope="module")
def expected(tiny_run: SimpleNamespace) -> dict[tuple[str, bool], Names]:
    """What Python says of each text."""
    found = {}
    for adapt in (False, True):
        for text, document in zip(
            TEXTS, NameTagger.load(tiny_run.archive, adapt=adapt).predict(TEXTS), strict=True
        ):
            names = [(name.text, name.label, name.start, name.end) for name in document.entities]
            found[text, adapt] = names
    return found


def test_the_same_entities_as_python_alone_and_under_load_and_at_the_end(
    server: SimpleNamespace, expected: dict[tuple[str, bool], Names]
) -> None:
    """The last of the three ends the server."""
    assert sum(map(len, expected.values())) > 6
    assert {key: ask(server, *key) for key in expected} == expected
    keys = list(expected) * 6
    with ThreadPoolExecutor(12) as pool:
        assert list(pool.map(lambda key: ask(server, *key), keys)) == [expected[key] for key in keys]
        long = "Maria Novak visited Paris on Monday.\n\n" * COPIES
        accepted = [pool.submit(ask, server, long, number % 2 == 0) for number in range(8)]
        while "metaner_requests_open 9.0" not in server.client.get("/metrics").text:
            assert not any(answer.done() for answer in accepted)
        server.process.send_signal(signal.SIGTERM)
        answers = [answer.result() for answer in accepted]
    for number, names in enumerate(answers):
        once = expected[TEXTS[0], number % 2 == 0]
        assert names == [
            (name, label, start + 38 * copy, end + 38 * copy)
            for copy in range(COPIES)
            for name, label, start, end in once
        ]
    assert server.process.finish(60) == 0
    assert not re.search("Error|Traceback", server.process.printed)
    with pytest.raises(httpx.ConnectError):
        server.client.get("/health")


def test_an_archive_that_retrieves_nothing(tiny_run: SimpleNamespace) -> None:
    reader = "{validation_dataset_reader: {type: 'ner_columns', num_columns: 2, token_indexers: "
    reader += f"{{tokens: {{type: 'word_transformer', model_name: '{tiny_run.encoder}'}}}}}}}}"
    with pytest.raises(ConfigurationError, match="pseudo_tasks"):
        load_taggers(str(tiny_run.archive), overrides=reader)
    taggers = load_taggers(
        str(tiny_run.archive), overrides=f"{reader} + {{'model.adaptation.enabled': false}}"
    )
    assert taggers.by_adaptation.keys() == {False} and not taggers.adapts


def test_an_exported_model(tiny_run: SimpleNamespace, command: Command, tmp_path: Path) -> None:
    command("metaner-export", tiny_run.archive, tmp_path / "exported")
    taggers = load_taggers(str(tmp_path / "exported"))
    assert taggers.name == "exported" and taggers.by_adaptation.keys() == {False} and not taggers.adapts
    plain = NameTagger.load(tiny_run.archive, adapt=False).predict(TEXTS[0])
    found = taggers.by_adaptation[False].predict(TEXTS[0])
    assert found.sentences[0].tags == plain.sentences[0].tags
    with pytest.raises(ConfigurationError, match="runtime='onnxruntime' is for folders"):
        load_taggers(str(tiny_run.archive), runtime="onnxruntime")


def test_what_cannot_be_served(command: Command, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        command("metaner-serve", str(tmp_path / "missing"), "--port", "0")
    with pytest.raises(ConfigurationError, match="queue_size=0 must be positive"):
        command("metaner-serve", str(tmp_path), "--queue-size", "0")
    with bound_socket("127.0.0.1", 0) as taken:
        taken.listen()
        port = str(taken.getsockname()[1])
        with pytest.raises(ConfigurationError, match=f"--port {port}: cannot be used"):
            command("metaner-serve", str(tmp_path), "--port", port)
    for host, port in [("127.0.0.1", "70000"), ("no such host", "0")]:
        with pytest.raises(ConfigurationError, match="cannot be used"):
            command("metaner-serve", str(tmp_path), "--host", host, "--port", port)


def test_without_the_extra(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "allennlp_metaner.serving.app", None)
    for name in list(sys.modules):
        if name.startswith("allennlp_metaner.serving"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "fastapi", None)
    with pytest.raises(ConfigurationError, match=r"needs fastapi.*allennlp-metaner\[serve\]"):
        command("metaner-serve", "model")
