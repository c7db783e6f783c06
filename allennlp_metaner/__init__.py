"""
Meta-learning for cross-lingual named entity recognition without labelled target data: an AllenNLP plugin.

Importing the package registers all its components (`--include-package allennlp_metaner`). `NameTagger` labels
texts with a trained model.
"""

from allennlp_metaner import archives
from allennlp_metaner.commands import (
    average,
    cases,
    diagnose,
    errors,
    experiment,
    export,
    label,
    neighbors,
    pseudo_label,
    report,
    serve,
    student,
)
from allennlp_metaner.data import (
    column_reader,
    doc_bin_reader,
    entity_masking_indexer,
    json_reader,
    table_reader,
    word_transformer_indexer,
)
from allennlp_metaner.evaluation import adapting_evaluator, sentence_serializer
from allennlp_metaner.meta import maml, second_order_maml
from allennlp_metaner.models import max_loss_tagger, word_transformer_embedder
from allennlp_metaner.nn import bert_adam, span_f1
from allennlp_metaner.predictors import adapting_predictor
from allennlp_metaner.retrieval import faiss_index, sentence_encoder, similarity_index
from allennlp_metaner.settings import set_cache, set_defaults, set_matmul_precision
from allennlp_metaner.tagging.name_tagger import NameTagger
from allennlp_metaner.tagging.results import Document, Entity, Neighbor, Sentence
from allennlp_metaner.tasks import pseudo_task_reader
from allennlp_metaner.training import atomic_checkpointer, epoch_loss, fused_adam, meta_trainer
from allennlp_metaner.unlabelled import reader as pseudo_label_reader

__all__ = [
    "Document",
    "Entity",
    "NameTagger",
    "Neighbor",
    "Sentence",
    "adapting_evaluator",
    "adapting_predictor",
    "archives",
    "atomic_checkpointer",
    "average",
    "bert_adam",
    "cases",
    "column_reader",
    "diagnose",
    "doc_bin_reader",
    "entity_masking_indexer",
    "epoch_loss",
    "errors",
    "experiment",
    "export",
    "faiss_index",
    "fused_adam",
    "json_reader",
    "label",
    "maml",
    "max_loss_tagger",
    "meta_trainer",
    "neighbors",
    "pseudo_label",
    "pseudo_label_reader",
    "pseudo_task_reader",
    "report",
    "second_order_maml",
    "sentence_encoder",
    "sentence_serializer",
    "serve",
    "similarity_index",
    "span_f1",
    "student",
    "table_reader",
    "word_transformer_embedder",
    "word_transformer_indexer",
]

set_cache()
set_defaults()
set_matmul_precision()
