"""Data whose truth is known: what each modality says of the label, alone and together.

Every generator returns a :class:`Synthetic`: modalities and labels for a model, the factors that
they were made of, and how much information there is between them, in nats. NumPy only; a seed
gives the same rows everywhere.
"""

from mmjax.data.synthetic.factors import disentangled_factors, shared_and_unique_factors
from mmjax.data.synthetic.gates import GATES, Gate, logic_gate, sample_joint
from mmjax.data.synthetic.gaussians import conditional_gaussians, correlated_gaussians
from mmjax.data.synthetic.interactions import INTERACTIONS, Interaction, interaction
from mmjax.data.synthetic.sample import PartialInformation, Synthetic
from mmjax.data.synthetic.trifeatures import (
    COLOURS,
    SHAPES,
    TEXTURES,
    draw_trifeatures,
    trifeatures,
)

__all__ = [
    "COLOURS",
    "GATES",
    "INTERACTIONS",
    "SHAPES",
    "TEXTURES",
    "Gate",
    "Interaction",
    "PartialInformation",
    "Synthetic",
    "conditional_gaussians",
    "correlated_gaussians",
    "disentangled_factors",
    "draw_trifeatures",
    "interaction",
    "logic_gate",
    "sample_joint",
    "shared_and_unique_factors",
    "trifeatures",
]
