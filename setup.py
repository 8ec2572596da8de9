"""Packaging of mmjax; `pip install -e '.[quickstart]'` is all that a first run needs."""

import pathlib
import re

from setuptools import find_packages, setup

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(
    r'^__version__ = "(.+)"$', (ROOT / "mmjax/__init__.py").read_text(), re.MULTILINE
).group(1)

TEXT = ["tokenizers>=0.21"]
FAST = ["simplejpeg>=1.8"]
QUICKSTART = ["qtawesome>=1.4,<1.5"]

setup(
    name="mmjax",
    version=VERSION,
    description="Multimodal representation learning in JAX and Flax: pure functions first.",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=find_packages(include=["mmjax", "mmjax.*"]),
    package_data={"mmjax": ["py.typed"]},
    install_requires=[
        "jax>=0.10",
        "flax>=0.12.8",
        "optax>=0.2.8",
        "orbax-checkpoint>=0.12",
        "grain>=0.2.18",
        "tensorflow-datasets>=4.9.10",
        "ml-collections>=1.1",
        "numpy",
        "jaxtyping>=0.3",
        "beartype>=0.20",
        "pillow>=11",
        "array-record>=0.8.1",
        "pyarrow>=18.1",
        "msgpack>=1.0.8",
        "absl-py",
        "tqdm",
        "tensorboardX>=2.6",
    ],
    extras_require={
        "quickstart": QUICKSTART,
        "text": TEXT,
        "fast": FAST,
        "cuda12": ["jax[cuda12]>=0.10"],
        "cuda13": ["jax[cuda13]>=0.10"],
        "tpu": ["jax[tpu]>=0.10"],
        "k8s": ["jax[k8s]>=0.10"],
        "test": [
            *QUICKSTART,
            *TEXT,
            *FAST,
            "pytest>=8",
            "hypothesis>=6.100",
            "scipy",
            "matplotlib",
            "nbclient",
            "nbformat",
            "ipykernel",
            "ruff>=0.15",
            "mypy>=1.15",
        ],
        # What the parity tests and the benchmark compare with; .ci/oracle.txt has a lighter way.
        "oracle": [
            "torch>=2.5",
            "open_clip_torch>=3.3",
            "pytorch-metric-learning>=2.9",
            "lightly>=1.6",
            "info-nce-pytorch>=0.1.4",
            "webdataset>=1.0",
            "cvxpy>=1.9",
            "clarabel>=0.11",
            "dit>=2.3",
            "POT>=0.9.7",
            "ott-jax>=0.6",
            "scikit-learn>=1.6",
            "cca-zoo>=4.0",
            "tslearn>=0.10",
            "dtaidistance>=2.3",
            "pysdtw>=0.0.5",
            "infomeasure>=0.6",
        ],
    },
    classifiers=[
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
