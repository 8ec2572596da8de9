"""FLOPs by hand against those that XLA counts in an unrolled program, and published ones."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import pytest

from mmjax.encoders import ENCODERS, MLP, BagOfWords, ConvNet, TextTransformer, VisionTransformer
from mmjax.losses import clip_loss
from mmjax.models import TwoTower
from mmjax.training.config import read_config
from mmjax.training.cost import ENCODER_COSTS, product, sample_cost, tower
from mmjax.training.design import build_design

ROOT = pathlib.Path(__file__).parents[2]
ROWS = 4
WIDE = {"width": 512, "depth": 2, "heads": 4, "scan_layers": False}
TOWERS = {
    "class": (VisionTransformer(patch_size=8, pooling="class", **WIDE), (48, 32, 3)),
    "mean": (VisionTransformer(patch_size=8, pooling="mean", mlp_ratio=3.0, **WIDE), (48, 32, 3)),
    "attention": (VisionTransformer(patch_size=8, pooling="attention", **WIDE), (48, 32, 3)),
    "text": (TextTransformer(vocab_size=9, max_length=40, causal=True, **WIDE), (40,)),
    "mlp": (MLP(hidden=(256, 512), features=128), (300,)),
    "words": (BagOfWords(vocab_size=9, width=512, hidden=(700,)), (6,)),
    "convnet": (ConvNet(features=64, widths=(64, 128), blocks=(1, 2)), (64, 64, 3)),
}


def examples(shape, rows=ROWS):
    dtype = {3: jnp.uint8, 1: jnp.int32}[len(shape)]
    return jax.ShapeDtypeStruct((rows, *shape), dtype)


def inputs_of(name, shape):
    return jax.ShapeDtypeStruct((ROWS, *shape), jnp.float32) if name == "mlp" else examples(shape)


def counted(function, *arguments):
    """What XLA counts before it changes anything; loops once, so there must be none."""
    return jax.jit(function).lower(*arguments).cost_analysis()["flops"]


@pytest.mark.parametrize("name", TOWERS)
def test_the_forward_pass_of_a_tower_is_what_xla_counts(name):
    module, shape = TOWERS[name]
    x = inputs_of(name, shape)
    params = jax.eval_shape(module.init, jax.random.key(0), x)
    found = counted(module.apply, params, x)
    # XLA also counts norms, softmaxes and activations; and no product with a border's padding.
    low, high = (0.93, 1.01) if name == "convnet" else (0.999, 1.025)
    assert low < found / (ROWS * tower(module, shape).total) < high


def test_left_out_patches_cost_nothing_in_training():
    shape, patches, width = (64, 64, 3), 64, 512
    module = VisionTransformer(patch_size=8, patch_dropout=0.5, **WIDE)
    cost, whole = tower(module, shape), tower(module, shape, train=False)
    per_token, per_pair = 2 * 12 * width**2, 4 * width
    saved = patches / 2 * per_token + (patches**2 - (patches / 2) ** 2) * per_pair
    assert whole.total - cost.total == WIDE["depth"] * saved
    # All patches are embedded before some are left out.
    none = tower(module.clone(depth=0), shape)
    assert none.total == product(patches, 8 * 8 * 3, width)


@pytest.mark.parametrize("remat", [False, True])
def test_a_training_step_is_what_xla_counts(remat):
    shapes = {"image": (48, 48, 3), "text": (40,)}
    towers = {
        "image": VisionTransformer(patch_size=8, pooling="class", remat=remat, **WIDE),
        "text": TextTransformer(vocab_size=9, max_length=40, remat=remat, **WIDE),
    }
    model, rows = TwoTower(towers, embed_dim=256), 64
    x = {name: examples(shape, rows) for name, shape in shapes.items()}
    params = jax.eval_shape(model.init, jax.random.key(0), x)

    def cost(params, x):
        outputs = model.apply(params, x)
        both = outputs["embeddings"]
        scale = outputs["logit_scale"]
        return jnp.sum(clip_loss(both["image"], both["text"], logit_scale=scale, chunk_size=None))

    found = counted(jax.grad(cost), params, x)
    expected = sample_cost(model, shapes, batch_size=rows)
    # Pixels need no gradient: of the three products of the first layer there are two.
    pixels = product(36, 8 * 8 * 3, 512)
    assert (expected.recomputed > 0) == remat
    assert found / (rows * (expected.computed - pixels)) == pytest.approx(1.01, abs=0.012)


def test_what_is_computed_again_is_counted_apart():
    shapes = {"image": (64, 64, 3), "text": (40,)}
    towers = {"image": TOWERS["mean"][0], "text": TOWERS["text"][0]}
    model = TwoTower(towers, embed_dim=256)
    cost = functools.partial(sample_cost, model, shapes, batch_size=1000)
    plain, parts, chunks, ring = (
        cost(),
        cost(micro_batches=2),
        cost(chunk_size=100),
        cost(ring=True),
    )
    assert plain.computed == plain.model == parts.model == chunks.model == ring.model
    assert parts.recomputed == parts.towers / 3
    assert chunks.rescored == ring.rescored == chunks.loss / 3 == 2 * 256 * 1000


# GFLOPs of a forward pass as open_clip lists them in docs/model_profile.csv (commit 3b37473).
PUBLISHED = {
    "clip_vit_b32": 14.78,
    "clip_vit_b16": 41.09,
    "clip_vit_l14": 175.33,
    "siglip_vit_b16": 46.44,
    "siglip_vit_l16": 201.62,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_models_cost_what_others_count(name):
    config = read_config(ROOT / f"configs/{name}.py")
    design = build_design(config, vocab_size=1)
    assert design.cost().towers / 3 / 1e9 == pytest.approx(PUBLISHED[name], rel=0.01)


def test_every_encoder_has_a_cost_and_another_module_is_named():
    assert set(ENCODERS.values()) == set(ENCODER_COSTS)
    model = TwoTower({"text": TOWERS["words"][0]}, embed_dim=4)
    with pytest.raises(ValueError, match="FLOPs of TwoTower are not known, only those of Vision"):
        tower(model, (3,))
