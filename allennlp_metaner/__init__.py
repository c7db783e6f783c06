"""
Meta-learning for cross-lingual named entity recognition without labelled target data: an AllenNLP plugin.

Importing the package registers all its components (`--include-package allennlp_metaner`). `NameTagger` labels
texts with a trained model.
"""

from allennlp_metaner import archives, whole_outputs
from allennlp_metaner.archives import load_archive
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
from allennlp_metaner.data.column_reader import ColumnReader
from allennlp_metaner.data.entity_masking_indexer import EntityMaskingIndexer
from allennlp_metaner.evaluation import adapting_evaluator, sentence_serializer
from allennlp_metaner.evaluation.adapting_evaluator import AdaptingEvaluator
from allennlp_metaner.idle_threads import watch_for_contention
from allennlp_metaner.meta import meta_gradients, second_order_maml
from allennlp_metaner.meta.inner_loop import InnerLoop
from allennlp_metaner.meta.meta_gradients import MetaGradient
from allennlp_metaner.meta.test_time_adaptation import TestTimeAdaptation
from allennlp_metaner.models import max_loss_tagger, word_transformer_embedder
from allennlp_metaner.models.max_loss_tagger import MaxLossTagger
from allennlp_metaner.nn import bert_adam, span_f1
from allennlp_metaner.predictors import adapting_predictor
from allennlp_metaner.predictors.adapting_predictor import AdaptingPredictor
from allennlp_metaner.retrieval import faiss_index, sentence_encoder, similarity_index
from allennlp_metaner.retrieval.retriever import Retriever
from allennlp_metaner.retrieval.sentence_encoder import SentenceEncoder
from allennlp_metaner.retrieval.similarity_index import SimilarityIndex
from allennlp_metaner.settings import set_cache, set_defaults, set_matmul_precision
from allennlp_metaner.tagging.name_tagger import NameTagger
from allennlp_metaner.tagging.results import Document, Entity, Neighbor, Sentence
from allennlp_metaner.tasks import pseudo_task_reader
from allennlp_metaner.tasks.pseudo_task_reader import PseudoTaskReader
from allennlp_metaner.training import (
    atomic_checkpointer,
    epoch_loss,
    fused_adam,
    meta_trainer,
    processes,
    reproducible_trainer,
    sharded_data_loader,
)
from allennlp_metaner.training.meta_trainer import MetaTrainer
from allennlp_metaner.unlabelled import pseudo_label_reader

__version__ = "0.1.0"

__all__ = [
    "AdaptingEvaluator",
    "AdaptingPredictor",
    "ColumnReader",
    "Document",
    "Entity",
    "EntityMaskingIndexer",
    "InnerLoop",
    "MaxLossTagger",
    "MetaGradient",
    "MetaTrainer",
    "NameTagger",
    "Neighbor",
    "PseudoTaskReader",
    "Retriever",
    "Sentence",
    "SentenceEncoder",
    "SimilarityIndex",
    "TestTimeAdaptation",
    "__version__",
    "load_archive",
]

set_cache()
set_defaults()
set_matmul_precision()
watch_for_contention()
