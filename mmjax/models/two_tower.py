"""Any number of named towers that share one unit sphere, with a learnable temperature and bias."""

import dataclasses
import difflib
import math
from collections.abc import Iterable, Mapping
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from mmjax.arrays import Array, checked
from mmjax.encoders import ENCODERS
from mmjax.encoders.partitioned import named
from mmjax.losses import siglip_bias_init

_DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
_RESERVED = ("logit_scale", "logit_bias", "towers", "embed_dim")


@checked
def unit_rows(x: Float[Array, "n d"]) -> Float[jax.Array, "n d"]:
    r"""Scale rows to unit length, :math:`x / \lVert x \rVert_2`, in float32.

    Args:
        x: rows of any length.

    Returns:
        Rows of length 1. A row shorter than 1e-6 has no direction to speak of: it gives 0, with a
        gradient of 0, where the formula would give NaN.

    >>> print(unit_rows(jnp.array([[3.0, 4.0], [0.0, 0.0]])))
    [[0.6 0.8]
     [0.  0. ]]
    """
    x = jnp.asarray(x).astype(jnp.float32)
    square = jnp.sum(x * x, axis=-1, keepdims=True)
    usable = square > 1e-12
    # The inner `where` keeps the infinite slope at 0 out of the branch that is not taken.
    return jnp.where(usable, x / jnp.sqrt(jnp.where(usable, square, 1)), 0)


@jax.custom_vjp
def _clamp(x: jax.Array, top: jax.Array) -> jax.Array:
    return jnp.minimum(x, top)


def _clamp_forward(x: jax.Array, top: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jnp.minimum(x, top), x < top


def _clamp_backward(below: jax.Array, slope: jax.Array) -> tuple[jax.Array, jax.Array]:
    # Descent subtracts: a positive slope brings the value down, and may pass at the clamp as well.
    return jnp.where(below, slope, jnp.maximum(slope, 0)), jnp.zeros_like(slope)


_clamp.defvjp(_clamp_forward, _clamp_backward)


@checked
def clamped_scale(log_scale: Float[Array, ""], *, log_max: float) -> Float[jax.Array, ""]:
    r"""Give the multiplier of the logits, :math:`\exp(\min(s, s_{\max}))`.

    At the clamp the slope of a minimum is 0, and a temperature that has once reached it would stay
    there for good. Here the slope passes at the clamp, but only where it brings the value down;
    where it pushes up it is 0. So the parameter neither runs away nor gets stuck, without anyone
    having to clip it after each step.

    That choice looks at the slope it is given. It is the one of the whole batch unsharded, under
    jit with automatic sharding, in ``grad(shard_map(...))``, and in ``shard_map(grad(...))`` with
    ``check_vma=True``; with ``check_vma=False``, under ``pmap`` and with accumulated gradients it
    is the one of a part, so that a parameter at the clamp comes down as soon as one part asks.

    Args:
        log_scale: :math:`s`, the log of the multiplier, in nats.
        log_max: :math:`s_{\max}`, in nats.

    Returns:
        The multiplier, an inverse temperature: dimensionless, above 0.

    Source: the limit is that of Radford et al. 2021, arXiv:2103.00020, section 2.5; its one-sided
    slope is ours (there, the parameter is clipped after each update).

    >>> slope = jax.grad(lambda s, sign: sign * clamped_scale(s, log_max=0.0))
    >>> [slope(jnp.array(2.0), sign).item() for sign in (1.0, -1.0)]
    [1.0, 0.0]
    """
    log_scale = jnp.asarray(log_scale)
    return jnp.exp(_clamp(log_scale, jnp.asarray(log_max, log_scale.dtype)))


class TwoTower(nn.Module):
    """Named towers, one per modality, each projected onto one shared unit sphere.

    Two are what a contrastive loss compares; one, three or more work alike. The parameters are
    ``{"image": ..., "image_projection": ..., "text": ..., "text_projection": ...,
    "logit_scale": the log of the multiplier, "logit_bias"}`` for towers named image and text.

    Attributes:
        towers: a module per modality, each called as ``tower(x, train=...)`` and giving one row of
            features per example. The same module under two names has two sets of parameters.
        embed_dim: features of the shared space.
        logit_scale_init: initial multiplier of the similarities; CLIP starts at 1 / 0.07.
        logit_scale_max: the multiplier never exceeds it; see :func:`clamped_scale`.
        logit_bias_init: initial value of the bias that a sigmoid loss adds to the logits;
            :func:`mmjax.losses.siglip_bias_init` knows the right one for a batch size.

    Raises:
        ValueError: while being built, for no tower, a name that clashes, or a scale that cannot be.

    Source: Radford et al. 2021 (CLIP), arXiv:2103.00020, figure 3; the bias is that of Zhai et al.
    2023 (SigLIP), arXiv:2303.15343, section 3.2.

    >>> from mmjax.encoders import MLP, BagOfWords
    >>> towers = {"sound": MLP((8,), 8), "text": BagOfWords(vocab_size=9, width=8)}
    >>> inputs = {"sound": jnp.ones((2, 5)), "text": jnp.array([[1, 2], [3, 0]])}
    >>> model = TwoTower(towers, embed_dim=4)
    >>> outputs, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), inputs)
    >>> {name: rows.shape for name, rows in outputs["embeddings"].items()}
    {'sound': (2, 4), 'text': (2, 4)}
    """

    towers: Mapping[str, nn.Module]
    embed_dim: int
    logit_scale_init: float = 1 / 0.07
    logit_scale_max: float = 100.0
    logit_bias_init: float = 0.0

    # Flax then files a tower's parameters under the tower's own name, not under "towers_image".
    preserve_adopted_names = True

    def __post_init__(self):
        names = list(self.towers)
        if not names:
            raise ValueError("towers must name at least one tower, got none")
        for name in names:
            if not name.isidentifier() or name.endswith("_projection") or name in _RESERVED:
                raise ValueError(
                    "a tower's name must be a Python identifier, must not end in _projection and "
                    f"must not be one of {', '.join(_RESERVED)}; got {name!r}"
                )
        if not 0 < self.logit_scale_init <= self.logit_scale_max < math.inf:
            raise ValueError(
                "expected 0 < logit_scale_init <= logit_scale_max, both finite, got "
                f"{self.logit_scale_init} and {self.logit_scale_max}"
            )
        named = {
            name: tower
            if tower.parent is not None or tower.name == name
            else tower.clone(name=name)
            for name, tower in self.towers.items()
        }
        # Frozen, so that the module can be hashed: jit takes it as a static argument then.
        object.__setattr__(self, "towers", flax.core.FrozenDict(named))
        super().__post_init__()

    @nn.compact
    def __call__(self, inputs: Mapping[str, Array], *, train: bool = False) -> dict[str, Any]:
        """Embed the modalities that ``inputs`` holds: all of them, or any but none.

        Args:
            inputs: per modality, what its tower takes, one row per example.
            train: passed to the towers; dropout draws from the random stream "dropout".

        Returns:
            ``{"embeddings": {name: f32[n, d]}, "logit_scale": f32[], "logit_bias": f32[]}``, in
            float32 whatever the towers compute in. Embeddings have length 1 (or are 0, where a
            projection is); the scale is the multiplier itself, exponentiated and clamped.

        Raises:
            ValueError: for no input, for one without a tower, and for a missing one while the
                parameters are being initialised.
        """
        self._check_inputs(inputs)
        embeddings = {}
        for name in self.towers:
            if name not in inputs:
                continue
            features = self.towers[name](inputs[name], train=train)
            projection = nn.Dense(
                self.embed_dim,
                use_bias=False,
                kernel_init=named(nn.initializers.lecun_normal(), ("embed", None)),
                dtype=jnp.float32,
                name=f"{name}_projection",
            )
            embeddings[name] = unit_rows(projection(features))
        log_scale, bias = (
            self.param(name, nn.initializers.constant(value), (), jnp.float32)
            for name, value in (
                ("logit_scale", math.log(self.logit_scale_init)),
                ("logit_bias", self.logit_bias_init),
            )
        )
        scale = clamped_scale(log_scale, log_max=math.log(self.logit_scale_max))
        return {"embeddings": embeddings, "logit_scale": scale, "logit_bias": bias}

    def _check_inputs(self, inputs: Mapping[str, Array]) -> None:
        have, got = ", ".join(self.towers), ", ".join(inputs) or "nothing"
        if not inputs or set(inputs) - set(self.towers):
            raise ValueError(f"inputs must be some of the towers {have}; got {got}")
        if self.is_initializing() and set(inputs) != set(self.towers):
            raise ValueError(f"parameters need an input for each of {have} at first; got {got}")


def build_two_tower(config: Mapping[str, Any], *, batch_size: int, vocab_size: int) -> TwoTower:
    """Build a model from a configuration.

    Args:
        config: ``embed_dim`` and ``towers`` (per name, ``encoder`` as in
            :data:`mmjax.encoders.ENCODERS` and that encoder's fields), and where wanted ``dtype``
            ("float32" or "bfloat16", for towers that do not give their own) and the fields of
            :class:`TwoTower`. A ``logit_bias_init`` of None is SigLIP's for the batch size. A plain
            mapping or an ``ml_collections.ConfigDict``.
        batch_size: examples of a step over all devices.
        vocab_size: the tokenizer's, for towers with such a field that do not give it.

    Returns:
        The model, without parameters.

    Raises:
        ValueError: for an encoder, a field or a dtype that does not exist (naming those that do,
            and the nearest), a field that is missing, or a value that a tower refuses.

    >>> config = {"embed_dim": 4, "towers": {"text": {"encoder": "bag_of_words", "width": 8}}}
    >>> model = build_two_tower(config, batch_size=8, vocab_size=9)
    >>> model.towers["text"].vocab_size
    9
    """
    settings = dict(config)
    fields = [name for name in _fields(TwoTower) if name != "towers"]
    _check_known("field of the model", settings, [*fields, "towers", "dtype"])
    _check_present("the model", settings, ["embed_dim", "towers"])
    dtype = settings.pop("dtype", "float32")
    towers = {
        name: _build_tower(name, dict(tower), dtype=dtype, vocab_size=vocab_size)
        for name, tower in dict(settings.pop("towers")).items()
    }
    if settings.get("logit_bias_init", 0.0) is None:
        settings["logit_bias_init"] = siglip_bias_init(batch_size)
    return TwoTower(towers=towers, **settings)


def _build_tower(name: str, spec: dict[str, Any], *, dtype: str, vocab_size: int) -> nn.Module:
    _check_present(f"tower {name!r}", spec, ["encoder"])
    encoder = spec.pop("encoder")
    _check_known(f"encoder of tower {name!r}", [encoder], ENCODERS)
    fields = _fields(ENCODERS[encoder])
    _check_known(f"field of the {encoder} of tower {name!r}", spec, fields)
    if "vocab_size" in fields and spec.get("vocab_size") is None:
        spec["vocab_size"] = vocab_size
    wanted = spec.setdefault("dtype", dtype)
    _check_known("dtype", [wanted], _DTYPES)
    spec["dtype"] = _DTYPES[wanted]
    _check_present(f"tower {name!r}", spec, [name for name, needed in fields.items() if needed])
    # A configuration that went through JSON has lists, and a module has to be hashable.
    frozen = {key: tuple(x) if isinstance(x, list) else x for key, x in spec.items()}
    try:
        return ENCODERS[encoder](**frozen)
    except ValueError as error:
        raise ValueError(f"tower {name!r}: {error}") from error


def _fields(module: type[nn.Module]) -> dict[str, bool]:
    """Give the fields that a configuration may set, and whether it has to."""
    return {
        field.name: field.default is dataclasses.MISSING
        for field in dataclasses.fields(module)
        if field.name not in ("parent", "name")
    }


def _check_known(what: str, got: Iterable[str], known: Iterable[str]) -> None:
    known = sorted(known)
    for name in got:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f", did you mean {near[0]!r}?" if near else "."
            raise ValueError(f"unknown {what}: {name!r}{hint} There are {', '.join(known)}")


def _check_present(what: str, got: Iterable[str], needed: Iterable[str]) -> None:
    missing = sorted(set(needed) - set(got))
    if missing:
        raise ValueError(f"{what} lacks {', '.join(missing)}")
