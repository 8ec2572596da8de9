import copy
import functools
import json
import math
import re

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from mmjax.encoders import BagOfWords, ConvNet, TextTransformer
from mmjax.models import TwoTower, build_two_tower

CONFIG = {
    "embed_dim": 4,
    "dtype": "bfloat16",
    "logit_scale_init": 10.0,
    "logit_scale_max": 50.0,
    "logit_bias_init": None,
    "towers": {
        "image": {"encoder": "convnet", "features": 8, "widths": [16, 32], "blocks": [0, 1]},
        "text": {"encoder": "bag_of_words", "width": 8, "dtype": "float32"},
    },
}
WANT = TwoTower(
    {
        "image": ConvNet(8, (16, 32), (0, 1), dtype=jnp.bfloat16),
        "text": BagOfWords(9, 8, dtype=jnp.float32),
    },
    embed_dim=4,
    logit_scale_init=10.0,
    logit_scale_max=50.0,
    logit_bias_init=-math.log(63),  # log(p / (1 - p)) for p = 1 / 64
)


@pytest.mark.parametrize(
    "form",
    [
        dict,
        ml_collections.ConfigDict,
        ml_collections.FrozenConfigDict,
        lambda x: json.loads(json.dumps(x)),
    ],
    ids=["dict", "ConfigDict", "FrozenConfigDict", "json"],
)
def test_a_configuration_makes_the_model_that_it_says(form):
    config = form(copy.deepcopy(CONFIG))
    model = build_two_tower(config, batch_size=64, vocab_size=9)
    assert model.logit_bias_init == pytest.approx(WANT.logit_bias_init)
    assert model.clone(logit_bias_init=WANT.logit_bias_init) == WANT
    hash(model)
    again = build_two_tower(config, batch_size=64, vocab_size=9)  # the first took nothing out of it
    assert again == model


def test_what_is_left_out_has_the_model_s_defaults():
    config = {"embed_dim": 4, "towers": {"text": {"encoder": "bag_of_words", "width": 8}}}
    model = build_two_tower(config, batch_size=64, vocab_size=9)
    assert model == TwoTower({"text": BagOfWords(9, 8)}, embed_dim=4)
    inputs = {"text": np.array([[1, 2]], np.int32)}
    outputs = jax.eval_shape(lambda key: model.init_with_output(key, inputs)[0], jax.random.key(0))
    assert outputs["embeddings"]["text"].shape == (1, 4)


def test_a_tower_may_have_its_own_vocabulary():
    text = {"encoder": "text_transformer", "vocab_size": 30, "max_length": 5}
    text |= {"width": 8, "depth": 1, "heads": 2}
    config = {"embed_dim": 4, "towers": {"text": text}}
    tower = build_two_tower(config, batch_size=64, vocab_size=9).towers["text"]
    assert isinstance(tower, TextTransformer)
    assert tower.vocab_size == 30


def changed(path, value):
    """The configuration with one entry set, or taken away where ``value`` is None."""
    config = copy.deepcopy(CONFIG)
    *folders, name = path.split(".")
    place = functools.reduce(dict.__getitem__, folders, config)
    place[name] = value
    if value is None:
        del place[name]
    return config


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            "towers.image.encoder",
            "conv_net",
            "unknown encoder of tower 'image': 'conv_net', did you mean 'convnet'? There are "
            "bag_of_words, convnet, mlp, text_transformer, vision_transformer",
        ),
        (
            "towers.image.feature",
            8,
            "unknown field of the convnet of tower 'image': 'feature', did you mean 'features'? "
            "There are blocks, dropout, dtype, features, widths",
        ),
        (
            "towers.image.parent",
            8,
            "field of the convnet of tower 'image': 'parent'",
        ),
        ("embed_dims", 4, "unknown field of the model: 'embed_dims', did you mean 'embed_dim'?"),
        ("towers.text.width", None, "tower 'text' lacks width"),
        ("towers.text.encoder", None, "tower 'text' lacks encoder"),
        ("embed_dim", None, "the model lacks embed_dim"),
        ("dtype", "float16", "unknown dtype: 'float16', did you mean 'bfloat16'? There are"),
        ("towers.image.widths", [10, 16], "tower 'image': widths must be multiples of 16"),
        ("towers.text.pooling", "max", "tower 'text': pooling must be one of mean, sqrt"),
    ],
)
def test_what_cannot_be_built_is_named(path, value, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        build_two_tower(changed(path, value), batch_size=64, vocab_size=9)
