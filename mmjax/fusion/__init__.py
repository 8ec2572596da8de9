"""Fusion: from named modalities, of which any may be missing, to one row of features per example.

Modalities travel as mappings from names to arrays, ``where`` as one from the same names to masks.
Masking a modality equals deleting it: the same operator without its parameters. Each file holds
pure functions and, below them, the Flax Linen module that owns their parameters. In the order of
what they capture:

* every modality by itself: additive, late;
* products of two: bilinear, multiplicative, and of low rank mlb, mutan;
* products of all: tensor, low_rank, polynomial;
* one modality steers others: gated, film, nl_gate, attention; anything, given width: concatenation;
* tokens that look at each other: cross_modal, bottleneck, resampler, depth (early to late, and
  progressive), built of blocks and tokens;
* a search over where modalities meet and how: search (architectures, evolution), supernet (all of
  them as one program), population (training of many at once).
"""

from mmjax.fusion.additive import Additive, additive_fusion
from mmjax.fusion.attention import ModalityAttention, modality_attention
from mmjax.fusion.bilinear import Bilinear, bilinear_fusion, pairs_of
from mmjax.fusion.blocks import attend
from mmjax.fusion.bottleneck import BottleneckFusion, mean_of_present
from mmjax.fusion.concatenation import Concatenation, concatenate, concatenation_fusion
from mmjax.fusion.cross_modal import CrossModalTransformer
from mmjax.fusion.depth import DepthFusion
from mmjax.fusion.film import FiLM, film_fusion
from mmjax.fusion.gated import Gated, gated_fusion
from mmjax.fusion.late import (
    LateFusion,
    max_of_posteriors,
    mean_of_posteriors,
    product_of_posteriors,
)
from mmjax.fusion.low_rank import LowRankFusion, low_rank_fusion
from mmjax.fusion.mlb import MLB, mlb_fusion
from mmjax.fusion.multiplicative import Multiplicative, multiplicative_fusion
from mmjax.fusion.mutan import MUTAN, mutan_fusion
from mmjax.fusion.nl_gate import NLGate, nl_gate_fusion, non_local_gate
from mmjax.fusion.polynomial import Polynomial, polynomial_fusion
from mmjax.fusion.population import train_population
from mmjax.fusion.resampler import LatentResampler
from mmjax.fusion.search import (
    Architecture,
    History,
    Space,
    evolve,
    mutate,
    random_architectures,
    tournament,
)
from mmjax.fusion.supernet import Supernet, combine
from mmjax.fusion.tensor import TensorFusion, outer_product, tensor_fusion
from mmjax.fusion.tokens import last_token, mean_token, sinusoidal_positions

#: Operators on one row per modality and example. Each is built with ``features``, film and nl_gate
#: with the name of the modality that is their ``content`` too, and takes modalities and ``where``.
FUSIONS = {
    "additive": Additive,
    "concatenation": Concatenation,
    "late": LateFusion,
    "multiplicative": Multiplicative,
    "bilinear": Bilinear,
    "mlb": MLB,
    "mutan": MUTAN,
    "tensor": TensorFusion,
    "low_rank": LowRankFusion,
    "polynomial": Polynomial,
    "gated": Gated,
    "film": FiLM,
    "nl_gate": NLGate,
    "attention": ModalityAttention,
}

#: Operators on one sequence per modality and example, built with ``features`` and ``heads``. They
#: give one row per example, the resampler several.
SEQUENCE_FUSIONS = {
    "cross_modal": CrossModalTransformer,
    "bottleneck": BottleneckFusion,
    "resampler": LatentResampler,
    "depth": DepthFusion,
}

__all__ = [
    "FUSIONS",
    "MLB",
    "MUTAN",
    "SEQUENCE_FUSIONS",
    "Additive",
    "Architecture",
    "Bilinear",
    "BottleneckFusion",
    "Concatenation",
    "CrossModalTransformer",
    "DepthFusion",
    "FiLM",
    "Gated",
    "History",
    "LateFusion",
    "LatentResampler",
    "LowRankFusion",
    "ModalityAttention",
    "Multiplicative",
    "NLGate",
    "Polynomial",
    "Space",
    "Supernet",
    "TensorFusion",
    "additive_fusion",
    "attend",
    "bilinear_fusion",
    "combine",
    "concatenate",
    "concatenation_fusion",
    "evolve",
    "film_fusion",
    "gated_fusion",
    "last_token",
    "low_rank_fusion",
    "max_of_posteriors",
    "mean_of_posteriors",
    "mean_of_present",
    "mean_token",
    "mlb_fusion",
    "modality_attention",
    "multiplicative_fusion",
    "mutan_fusion",
    "mutate",
    "nl_gate_fusion",
    "non_local_gate",
    "outer_product",
    "pairs_of",
    "polynomial_fusion",
    "product_of_posteriors",
    "random_architectures",
    "sinusoidal_positions",
    "tensor_fusion",
    "tournament",
    "train_population",
]
