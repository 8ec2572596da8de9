"""The contrastive losses of other libraries, called like ours; no library has to be installed.

``tests/losses/test_parity.py`` holds ours against these functions, and the benchmark times the
same functions: what is compared for speed has been compared for its value.
"""

import dataclasses
import functools
import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, Literal

import jax
import jax.numpy as jnp

INSTALL = "install the peers with pip install -e '.[oracle]' or as .ci/oracle.txt says"

# These packages import torchvision, or a tracker, when they are opened. Their losses need neither,
# so that the packages stay unopened and only the module of the loss is run.
UNOPENED = {
    "lightly": (
        "lightly",
        "lightly.loss",
        "lightly.models",
        "lightly.models.modules",
        "lightly.models.utils",  # used for gathering a memory bank, and never here
        "lightly.utils",
    ),
    "open_clip": ("open_clip",),
    "torchmultimodal": (
        "torchmultimodal",
        "torchmultimodal.modules",
        "torchmultimodal.modules.losses",
        "torchmultimodal.utils",
    ),
}


@functools.cache
def peer_module(name: str) -> ModuleType:
    """Import a module of a peer.

    Args:
        name: such as ``"open_clip.loss"``.

    Returns:
        The module. Of the packages in ``UNOPENED`` only what the module itself imports is run.

    Raises:
        ImportError: if the peer, or torch, is not installed; it says what to do.
    """
    library = name.partition(".")[0]
    try:
        for package in UNOPENED.get(library, ()):
            if package not in sys.modules:
                spec = importlib.util.find_spec(package)
                if spec is None:
                    raise ImportError(f"No module named {package!r}")
                sys.modules[package] = importlib.util.module_from_spec(spec)
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"{library} cannot be imported ({error}): {INSTALL}") from error


@dataclasses.dataclass(frozen=True)
class Peer:
    """A loss of another library.

    Attributes:
        function: called with the arguments of ours, ``function(*rows, **scalars)`` and where ours
            has them ``labels``; gives the mean over the batch.
        module: what has to be importable.
        framework: whose arrays it takes.
        normalizes: whether it divides rows by their length itself, as ours do not.
        trap: what one has to know to get the right number from it.
        held: bytes that it holds at most with ``n`` float32 rows, as measured on a CPU.
        cuda: whether it runs on CUDA only.
    """

    function: Callable[..., Any]
    module: str
    framework: Literal["torch", "jax"] = "torch"
    normalizes: bool = False
    trap: str = ""
    held: Callable[[int], float] = lambda n: 24.0 * n**2
    cuda: bool = False


def open_clip_clip(x, y, *, logit_scale):
    """CLIP's loss."""
    return peer_module("open_clip.loss").ClipLoss()(x, y, logit_scale)


def torchmultimodal_clip(x, y, *, logit_scale, label_smoothing=0.0):
    """CLIP's loss."""
    module = peer_module("torchmultimodal.modules.losses.contrastive_loss_with_temperature")
    options = {"label_smoothing": label_smoothing}
    return module.contrastive_loss_with_temperature(
        x, y, logit_scale.log(), cross_entropy_kwargs=options
    ).loss


def memeff_clip(x, y, *, logit_scale):
    """CLIP's loss in Triton."""
    loss = peer_module("memeff").MemoryEfficientCLIPLoss(
        temperature=1 / float(logit_scale), normalized_inputs=True, stable=False
    )
    return loss(x, y)


def inf_cl_clip(x, y, *, logit_scale):
    """CLIP's loss in Triton."""
    there, back = (inf_cl_info_nce(a, b, temperature=1 / logit_scale) for a, b in ((x, y), (y, x)))
    return (there + back) / 2


def inf_cl_info_nce(query, key, *, temperature):
    """One direction, in Triton."""
    head = next((size for size in (256, 128, 64, 32, 16) if query.shape[1] % size == 0), None)
    if head is None:
        raise ValueError(f"inf_cl needs features in multiples of 16, got {query.shape[1]}")
    module = peer_module("inf_cl")
    return module.cal_flash_loss(query, key, scale=1 / temperature, head_dim=head).mean()


def open_clip_siglip(x, y, *, logit_scale, logit_bias):
    """SigLIP's loss."""
    return peer_module("open_clip.loss").SigLipLoss()(x, y, logit_scale, logit_bias)


def info_nce_pytorch(query, key, negatives=None, *, temperature):
    """One direction; negatives for all queries, or with three axes for each its own."""
    mode = "paired" if negatives is not None and negatives.ndim == 3 else "unpaired"
    return peer_module("info_nce").info_nce(
        query, key, negatives, temperature=temperature, negative_mode=mode
    )


def pml_info_nce(query, key, *, temperature):
    """One direction: keys are references, labels say which belongs to which query."""
    torch = peer_module("torch")
    labels = torch.arange(len(query), device=query.device)
    loss = peer_module("pytorch_metric_learning.losses").NTXentLoss(temperature=temperature)
    return loss(query, labels, ref_emb=key, ref_labels=labels.clone())


def lightly_nt_xent(x, y, *, temperature):
    """SimCLR's loss."""
    return peer_module("lightly.loss.ntx_ent_loss").NTXentLoss(temperature=temperature)(x, y)


def pml_nt_xent(x, y, *, temperature):
    """SimCLR's loss."""
    losses = peer_module("pytorch_metric_learning.losses")
    return losses.SelfSupervisedLoss(losses.NTXentLoss(temperature=temperature))(x, y)


def optax_nt_xent(x, y, *, temperature):
    """SimCLR's loss."""
    labels = jnp.tile(jnp.arange(len(x)), 2)
    # Where a caller has made JAX strict, its mixtures of dtypes and ranks would be refused.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return peer_module("optax").losses.ntxent(
            jnp.concatenate([x, y]), labels, temperature=temperature
        )


def pml_supervised_contrastive(x, *, labels, temperature):
    """Supervised contrastive loss, the positives' sum outside the logarithm."""
    losses = peer_module("pytorch_metric_learning.losses")
    return losses.SupConLoss(temperature=temperature)(x, labels)


PML = "pytorch_metric_learning.losses"
TORCHMULTIMODAL = "torchmultimodal.modules.losses.contrastive_loss_with_temperature"

# By our loss, then by library.
PEERS: Mapping[str, Mapping[str, Peer]] = {
    "clip_loss": {
        "open_clip": Peer(
            open_clip_clip,
            module="open_clip.loss",
            trap="takes the scale itself and leaves its bounds to the caller",
        ),
        "TorchMultimodal": Peer(
            torchmultimodal_clip,
            module=TORCHMULTIMODAL,
            trap="takes the logarithm of the scale; as a class it clamps it in place",
        ),
        "memeff": Peer(
            memeff_clip,
            module="memeff",
            trap="no gradient for the temperature; stable=True would scale the other gradients",
            cuda=True,
        ),
        "Inf-CL": Peer(inf_cl_clip, module="inf_cl", trap="one direction a call", cuda=True),
    },
    "siglip_loss": {
        "open_clip": Peer(
            open_clip_siglip,
            module="open_clip.loss",
            trap="divides by the rows of one rank: average it over ranks, do not sum",
        ),
    },
    "info_nce": {
        "info-nce-pytorch": Peer(info_nce_pytorch, module="info_nce", normalizes=True),
        "pytorch-metric-learning": Peer(
            pml_info_nce,
            module=PML,
            normalizes=True,
            trap="labels of references must be a copy: the same object silently gives 0",
            held=lambda n: 17.0 * n**3,
        ),
        "Inf-CL": Peer(inf_cl_info_nce, module="inf_cl", cuda=True),
    },
    "nt_xent": {
        "lightly": Peer(
            lightly_nt_xent,
            module="lightly.loss.ntx_ent_loss",
            normalizes=True,
            held=lambda n: 68.0 * n**2,
        ),
        "pytorch-metric-learning": Peer(
            pml_nt_xent,
            module=PML,
            normalizes=True,
            trap="SelfSupervisedLoss is SimCLR's loss of 2n rows, not CLIP's of n pairs",
            held=lambda n: 17.0 * (2 * n) ** 3,
        ),
        "optax": Peer(
            optax_nt_xent,
            framework="jax",
            module="optax",
            normalizes=True,
            trap="holds [2n, 2n, d]",
        ),
    },
    "supervised_contrastive": {
        "pytorch-metric-learning": Peer(
            pml_supervised_contrastive,
            module=PML,
            normalizes=True,
            trap="its mean leaves out rows that cost exactly 0: those without a positive",
            held=lambda n: 46.0 * n**2,
        ),
    },
}
