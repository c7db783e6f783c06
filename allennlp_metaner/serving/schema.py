"""What goes into the API and what comes out. FastAPI makes the schema in `/openapi.json` of these."""

from typing import Annotated, Any, Optional

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from allennlp_metaner.tagging.results import Entity, Neighbor


def _as_list(text: Any) -> Any:
    return [text] if isinstance(text, str) else text


Texts = Annotated[
    list[str],
    BeforeValidator(_as_list),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]
"""One text or several."""


class PredictRequest(BaseModel):
    """Documents to find names in."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"text": "Ana vive en Sevilla.", "threshold": 0.5}]}
    )

    text: Texts = Field(description="A text, or a list of texts. Each is a document.")
    adapt: Optional[bool] = Field(
        None, description="Adapt the model to each sentence. If null, what the archive says.", strict=True
    )
    threshold: float = Field(0.0, ge=0, le=1, description="Entities with less confidence are left out.")
    details: bool = Field(
        False, description="Add the sentences with their words, tags and neighbors.", strict=True
    )


class Sentence(BaseModel):
    """A sentence of a document, and the labelled sentences that the model was adapted to."""

    start: int
    end: int
    words: list[str]
    tags: list[str] = Field(description="BIO.")
    neighbors: list[Neighbor] = Field(description="The most similar first; empty without adaptation.")


class Document(BaseModel):
    """A document with its names. Places are Unicode code points of the text."""

    text: str
    entities: list[Entity]
    sentences: Optional[list[Sentence]] = Field(None, description="If details were asked for.")
    error: Optional[str] = Field(None, description="Why the document could not be labelled.")


class PredictResponse(BaseModel):
    """The documents, in the order of the texts."""

    adapt: bool = Field(description="Whether the model was adapted.")
    documents: list[Document]


class Health(BaseModel):
    """What is served."""

    status: str = "ok"
    model: str
    adapts: bool = Field(description="Whether a request is answered with adaptation if it does not say.")
    adapt_choices: list[bool] = Field(description="What `adapt` may be.")
    max_characters: int = Field(description="The most characters of a request.")


class Problem(BaseModel):
    """What is wrong with a request."""

    field: Optional[str] = Field(description='Such as "threshold" or "text[3]"; null: the whole request.')
    message: str


class Problems(BaseModel):
    """The body of every answer that is no success."""

    errors: list[Problem]
