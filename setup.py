"""Packaging of allennlp-metaner. How to install it, and why plain `pip install` cannot: `requirements/`."""

import os
import site
import sys
import sysconfig
from pathlib import Path

from setuptools import find_packages, setup

SERVE = ["fastapi>=0.110", "prometheus-client>=0.20", "pydantic>=2.6", "uvicorn>=0.29"]
RAY = ["ray[data]>=2.51"]
CONFIGS = "training_configs"
PLAIN_PIP = """
allennlp-metaner cannot be installed by `pip install` alone: AllenNLP 2.10.1 asks for versions of torch and
others that are long outdated, and pip cannot override that. README.md, section Installation, has two ways:

  with uv    uv pip install --override requirements/overrides.txt --constraints requirements/constraints.txt .

  with pip   pip install -r requirements/pip.txt -c requirements/constraints.txt
             pip install --no-deps allennlp==2.10.1 allennlp-models==2.10.1
             pip install --no-deps -e .

To build a wheel: uv build --wheel, or PIP_NO_DEPS=1 pip wheel .
"""


def refuse_plain_pip() -> None:
    """
    Ends with a hint before pip tries to resolve what it cannot, and downloads half a gigabyte for that.
    Whoever follows the hint has AllenNLP installed already.
    """
    if "PIP_BUILD_TRACKER" not in os.environ or os.environ.get("PIP_NO_DEPS"):
        return
    folders = [sysconfig.get_path("purelib"), site.getusersitepackages()]
    if not any(Path(folder, "allennlp").is_dir() for folder in folders):
        sys.exit(PLAIN_PIP)


refuse_plain_pip()
setup(
    name="allennlp-metaner",
    version="0.1.0",
    description="Meta-learning for cross-lingual named entity recognition, for AllenNLP",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="The maintainers of allennlp-metaner",
    license="Apache-2.0",
    keywords="named-entity-recognition cross-lingual zero-shot meta-learning maml allennlp",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Text Processing :: Linguistic",
    ],
    # The configs are beside the package in a clone, and inside of it where it is installed.
    packages=[*find_packages(include=["allennlp_metaner*"]), f"allennlp_metaner.{CONFIGS}"],
    package_dir={f"allennlp_metaner.{CONFIGS}": CONFIGS},
    package_data={
        "allennlp_metaner.serving": ["*.html"],
        f"allennlp_metaner.{CONFIGS}": ["**/*.jsonnet", "**/*.libsonnet"],
    },
    python_requires=">=3.10,<3.13",
    install_requires=[
        "allennlp==2.10.1",
        "allennlp-models==2.10.1",
        "charset-normalizer>=3.2",
        "filelock>=3.12,<4",
        # Wheels of 1.1 are the last for Python 3.10; both have ICU 78.
        "icu4py>=1.1,<2",
        "matplotlib>=3.8",
        "numpy>=1.26",
        "regex>=2024.4",
        "safetensors>=0.4",
        "sentencex>=1.0.32,<2",
        "seqeval>=1.2",
        # allennlp_models imports pkg_resources, which setuptools 81 removes.
        "setuptools<81",
        "spacy>=3.7",
        "tokenizers>=0.19",
        # From 2.6 on, `torch.load` runs no code of a file.
        "torch>=2.6",
        "torchvision>=0.19",
        # From 4.44 on, AutoTokenizer rejects `add_special_tokens=False`, which AllenNLP passes.
        "transformers>=4.40,<4.44",
    ],
    entry_points={"spacy_factories": ["metaner = allennlp_metaner.tagging.spacy_component:make_metaner"]},
    extras_require={
        "dev": [
            *RAY,
            *SERVE,
            "allpairspy",
            "faiss-cpu>=1.10",
            "griffe",
            "httpx>=0.27",
            "hypothesis",
            "mkdocs-gen-files",
            "mkdocs-material",
            "mypy",
            "onnx>=1.16",
            "onnxruntime>=1.17",
            "properdocs",
            "pytest",
            "pytest-xdist",
            "ruff",
        ],
        "onnx": ["onnx>=1.16", "onnxruntime>=1.17"],
        "faiss": ["faiss-cpu>=1.10"],
        "ray": RAY,
        "serve": SERVE,
    },
)
