"""The API: what it answers, and what it refuses, with the field."""

import json
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from allennlp.common.checks import ConfigurationError

from allennlp_metaner.serving.app import Limits
from allennlp_metaner.tagging.name_tagger import NameTagger
from tests.serving.conftest import GatedBackend, PlainBackend, Running, Start, taggers
from tests.tagging.conftest import CapitalsBackend

TEXT = "then Élise Novak left 🙂.\n\nIn the <b> of Paris"


def until(condition: Callable[[], bool]) -> None:
    """Wait until this holds."""
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("it never held")


def expected(adapt: bool, text: str) -> list[tuple[str, str, int, int]]:
    tagger = taggers(PlainBackend(), CapitalsBackend()).by_adaptation[adapt]
    return [(entity.text, entity.label, entity.start, entity.end) for entity in tagger.predict(text).entities]


def found(document: dict) -> list[tuple[str, str, int, int]]:
    return [
        (entity["text"], entity["label"], entity["start"], entity["end"]) for entity in document["entities"]
    ]


def test_texts(service: Running) -> None:
    answer = service.post(text=TEXT).json()
    assert answer["adapt"] is True
    (document,) = answer["documents"]
    assert document.keys() == {"text", "entities"} and document["text"] == TEXT
    assert found(document) == expected(True, TEXT)
    assert ("Élise Novak", "PER", 5, 16) in found(document)
    answer = service.post(text=[TEXT, "", "so Anna left"], adapt=False).json()
    assert answer["adapt"] is False
    assert [found(document) for document in answer["documents"]] == [expected(False, TEXT), [], []]
    assert service.post(text=[]).json()["documents"] == []


def test_details_and_threshold(service: Running) -> None:
    (document,) = service.post(text="Ana left Rome", details=True).json()["documents"]
    assert document["sentences"] == [
        {
            "start": 0,
            "end": 13,
            "words": ["Ana", "left", "Rome"],
            "tags": ["B-LOC", "O", "B-LOC"],
            "neighbors": [{"words": ["Peter", "left"], "tags": ["B-PER", "O"], "similarity": 0.5}],
        }
    ]
    (document,) = service.post(text="Ana left Rome", details=True, threshold=0.5).json()["documents"]
    assert document["sentences"][0]["tags"] == ["B-LOC", "O", "O"]
    assert [entity["confidence"] for entity in document["entities"]] == [1.0]


@pytest.mark.parametrize(
    ("content", "status", "field", "message"),
    [
        ({"text": 1}, 422, "text", "list"),
        ({"text": ["a", None]}, 422, "text[1]", "string"),
        ({}, 422, "text", "required"),
        ({"text": "a", "threshold": 2}, 422, "threshold", "less than or equal to 1"),
        ({"text": "a", "threshold": float("nan")}, 422, "threshold", "less than or equal"),
        ({"text": "a", "adapt": "perhaps"}, 422, "adapt", "boolean"),
        ({"text": "a", "treshold": 0.5}, 422, "treshold", "no such field. Valid are text, adapt"),
        ({"text": "a" * 1001}, 413, "text", "1001 characters are more than 1000"),
        ({"text": [""] * 1001}, 413, "text", "1001 characters"),
        ([1], 422, None, "JSON object"),
    ],
)
def test_wrong_fields(
    service: Running, content: object, status: int, field: str | None, message: str
) -> None:
    response = service.client.post(
        "/predict", content=json.dumps(content), headers={"Content-Type": "application/json"}
    )
    assert response.status_code == status
    (problem,) = response.json()["errors"]
    assert problem["field"] == field and message in problem["message"]


def test_lone_surrogates(service: Running) -> None:
    """Every string that JSON can carry is answered as it is, with places in it, as from all other inputs."""
    text = "\ud800 Ana \ud83d 🙂 left Rome\udfff"
    response = service.client.post(
        "/predict",
        content=json.dumps({"text": ["Ana", text], "details": True}),
        headers={"Content-Type": "application/json"},
    )
    assert response.status_code == 200 and b"\\ud800" in response.content
    _, document = response.json()["documents"]
    assert document["text"] == text
    assert [entity["text"] for entity in document["entities"]] == ["Ana", "Rome"]
    assert all(text[found["start"] : found["end"]] == found["text"] for found in document["entities"])
    assert next(word for one in document["sentences"] for word in one["words"]) == "\ufffd"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422),
        (b"{", 422),
        (b'{"text": "Anna"', 422),
        (bytes(range(256)) * 20, 422),
        (b"\x80" + bytes(range(255, -1, -1)) * 20, 400),
        ('{"text": "Anna"}'.encode("utf-16"), 200),
        (b"[" * 15_000, 400),
        (b'{"threshold": ' + b"9" * 5000 + b', "text": ""}', 400),
        (b'{"text": "' + b"a" * 1_000_000 + b'"}', 413),
        (b"\xff" * 3_000_000, 413),
    ],
)
def test_bodies_that_are_no_request(service: Running, body: bytes, status: int) -> None:
    response = service.client.post("/predict", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == status, response.text
    if status != 200:
        assert response.json()["errors"][0]["message"]
    assert service.post(text="so Anna left").status_code == 200


def test_other_requests(service: Running) -> None:
    for method, path, status in [("GET", "/predict", 405), ("GET", "/none", 404), ("PUT", "/", 405)]:
        response = service.client.request(method, path)
        assert response.status_code == status
        assert response.json()["errors"][0]["field"] is None
    plain = service.client.post("/predict", content=b"Anna", headers={"Content-Type": "text/plain"})
    assert (
        plain.status_code == 422 and "Content-Type: application/json" in plain.json()["errors"][0]["message"]
    )


def test_health_schema_and_metrics(service: Running) -> None:
    assert service.client.get("/health").json() == {
        "status": "ok",
        "model": "a model",
        "adapts": True,
        "adapt_choices": [False, True],
        "max_characters": 1000,
    }
    schema = service.client.get("/openapi.json").json()
    responses = schema["paths"]["/predict"]["post"]["responses"]
    assert {"200", "413", "422", "429"} <= responses.keys()
    for status in ("413", "422", "429"):
        content = responses[status]["content"]["application/json"]["schema"]
        assert content == {"$ref": "#/components/schemas/Problems"}
    before = {name: service.metric(name) for name in METRICS}
    service.post(text="so Anna left Rome")
    service.client.get("/made/up")
    after = {name: service.metric(name) for name in METRICS}
    assert [after[name] - before[name] for name in METRICS] == [1, 1, 2, 17, 1]


METRICS = [
    'metaner_requests_total{path="/predict",status="200"}',
    'metaner_requests_total{path="other",status="404"}',
    'metaner_entities_total{label="LOC"}',
    "metaner_characters_total",
    "metaner_batch_requests_count",
]


def test_a_document_that_cannot_be_labelled(service: Running) -> None:
    good, bad = service.post(text=["so Anna left", "so boom left"]).json()["documents"]
    assert found(good) == [("Anna", "LOC", 3, 7)]
    assert bad["entities"] == [] and "out of order" in bad["error"]


def test_an_archive_that_cannot_adapt(start: Start) -> None:
    service = start(taggers(PlainBackend()))
    assert service.post(text="so Anna Novak left").json()["adapt"] is False
    response = service.post(text="a", adapt=True)
    assert response.status_code == 422 and response.json()["errors"][0]["field"] == "adapt"


def test_the_queue_is_bounded_and_waiting_requests_are_labelled_together(start: Start) -> None:
    backend = GatedBackend()
    service = start(taggers(backend), queue_size=3)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(service.post, text="so Anna left")
        until(lambda: service.metric("metaner_batch_requests_count") == 1)
        waiting = [pool.submit(service.post, text=f"so Anna {'x' * number} left") for number in range(3)]
        until(lambda: service.metric("metaner_queue_requests") == 3)
        refused = service.post(text="so Anna left")
        assert refused.status_code == 429 and refused.headers["Retry-After"] == "1"
        assert "Try again later" in refused.json()["errors"][0]["message"]
        assert service.client.get("/health").status_code == 200
        backend.gate.set()
        assert [answer.result().status_code for answer in [first, *waiting]] == [200] * 4
    assert sorted(len(batch) for batch in backend.batches) == [1, 3]


def test_clients_that_leave_are_not_labelled(start: Start) -> None:
    backend = GatedBackend()
    service = start(taggers(backend))
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(service.post, text="so Anna left")
        until(lambda: service.metric("metaner_batch_requests_count") == 1)
        for _ in range(5):
            with pytest.raises(httpx.ReadTimeout):
                service.client.post("/predict", json={"text": "so Peter left"}, timeout=0.1)
        until(lambda: service.metric('metaner_requests_total{path="/predict",status="499"}') == 5)
        backend.gate.set()
        assert first.result().status_code == 200
    assert found(service.post(text="so Maria left").json()["documents"][0]) == [("Maria", "LOC", 3, 8)]
    assert [words[1] for batch in backend.batches for words in batch] == ["Anna", "Maria"]


def test_slow_clients_and_broken_connections(service: Running) -> None:
    header = b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    slow = [socket.create_connection(service.address) for _ in range(20)]
    for connection in slow:
        connection.sendall(header + b"Content-Length: 17\r\n\r\n{")
    half = [socket.create_connection(service.address) for _ in range(20)]
    for connection in half:
        connection.sendall(header[:30])
    for _ in range(20):
        with socket.create_connection(service.address) as leaving:
            leaving.sendall(header + b'Content-Length: 17\r\n\r\n{"text": "An')
    noise = socket.create_connection(service.address)
    noise.sendall(bytes(range(256)))
    assert noise.recv(100).startswith(b"HTTP/1.1 400")
    assert service.post(text="so Anna left").status_code == 200
    for connection in slow:
        connection.settimeout(30)
        answer = connection.makefile("rb").read()
        assert answer.startswith(b"HTTP/1.1 408") and b"body did not arrive within 2 seconds" in answer
    for connection in half:
        connection.settimeout(30)
        answer = connection.makefile("rb").read()
        assert answer.startswith(b"HTTP/1.1 408") and b"header did not arrive within 2 seconds" in answer
    for connection in [*slow, *half, noise]:
        connection.close()
    assert service.post(text="so Anna left").status_code == 200


def test_the_end_answers_what_was_accepted(start: Start) -> None:
    backend = GatedBackend()
    service = start(taggers(backend))
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(service.post, text=f"so Anna {'x' * number} left") for number in range(8)]
        until(lambda: service.metric("metaner_requests_open") == 9)
        service.server.should_exit = True
        threading.Timer(0.5, backend.gate.set).start()
        assert [answer.result().status_code for answer in answers] == [200] * 8
    service.thread.join(30)
    assert not service.thread.is_alive()
    with pytest.raises(httpx.ConnectError):
        service.post(text="so Anna left")


def test_an_error_of_the_engine_is_an_answer(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    service = start(taggers(CapitalsBackend()))
    with monkeypatch.context() as patch:
        patch.setattr(NameTagger, "pipe", lambda *_: (_ for _ in ()).throw(RuntimeError("secret")))
        response = service.post(text="so Anna left")
    assert response.status_code == 500 and "secret" not in response.text
    assert response.json()["errors"] == [
        {"field": None, "message": "the service failed on this request; its log says why"}
    ]
    assert service.post(text="so Anna left").status_code == 200


def test_many_clients_get_what_one_alone_gets(service: Running) -> None:
    texts = [
        f"so Anna {'Novak ' * (number % 3)}left {'Rome' if number % 2 else 'it'} {number}"
        for number in range(96)
    ]
    adapts = [number % 4 > 0 for number in range(96)]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda text, adapt: service.post(text=text, adapt=adapt), texts, adapts))
    for text, adapt, answer in zip(texts, adapts, answers, strict=True):
        assert answer.status_code == 200
        (document,) = answer.json()["documents"]
        assert document["text"] == text and found(document) == expected(adapt, text)


@pytest.mark.parametrize("name", ["max_characters", "queue_size", "batch_size", "request_seconds"])
def test_limits_are_positive(name: str) -> None:
    for value in (0, -1, float("nan")):
        with pytest.raises(ConfigurationError, match=f"{name}={value} must be positive"):
            Limits(**{name: value})
