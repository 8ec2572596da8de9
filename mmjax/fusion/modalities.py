"""Named modalities, of which an example may lack some: where every operator of this room starts.

What holds for all of them: the order of the mappings does not matter, to the last bit; masking a
modality equals deleting it; an example that has no modality at all gives 0, with a gradient of 0,
unless the operator says otherwise; the result has the dtype of the modalities, to which parameters
are cast, and sums over features run in float32 or wider.
"""

import dataclasses
import functools
import operator
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Float

from mmjax.arrays import Array, accumulation_dtype, checked
from mmjax.modalities import read_modalities


@dataclasses.dataclass(frozen=True)
class Modalities:
    """Modalities in the order of their names, blanked where they are missing.

    Attributes:
        arrays: per modality, one row ``[n, d]`` or one sequence ``[n, t, d]`` per example, all in
            one dtype, 0 where missing.
        valid: per modality, the rows ``[n]`` or the tokens ``[n, t]`` that are there.
    """

    arrays: dict[str, jax.Array]
    valid: dict[str, jax.Array]

    @classmethod
    def of(
        cls, inputs: Mapping[str, Array], where: Mapping[str, Array] | None = None
    ) -> "Modalities":
        """Sort by name, make the dtypes one, and blank what is missing before any product sees it.

        Args:
            inputs: per modality, an array ``[n, d]`` or ``[n, t, d]``, each with a size of its own
                but for n.
            where: per modality, ``[n]`` or ``[n, t]``, True where it is there; everywhere if None.

        Returns:
            The modalities; if their dtypes differ, in float32 or the wider one among them.

        Raises:
            jaxtyping.TypeCheckError: on a wrong shape or dtype of one modality.
            ValueError: for no modality, a name that only one of the mappings has, or different
                numbers of examples.

        >>> x = {"text": jnp.ones((2, 3)), "image": jnp.full((2, 1), jnp.nan)}
        >>> have = {"text": jnp.array([True, True]), "image": jnp.array([False, False])}
        >>> Modalities.of(x, have).arrays["image"].tolist()
        [[0.0], [0.0]]
        """
        arrays, masks = read_modalities(inputs, where)
        given = {x.dtype for x in arrays.values()}
        dtype = given.pop() if len(given) == 1 else accumulation_dtype(*arrays.values())
        return cls({name: x.astype(dtype) for name, x in arrays.items()}, masks)

    def __iter__(self) -> Iterator[tuple[str, jax.Array, jax.Array]]:
        """Give the name, the array and the mask of each modality."""
        return ((name, x, self.valid[name]) for name, x in self.arrays.items())

    @property
    def dtype(self) -> jnp.dtype:
        """The dtype of the arrays, and of what comes of them."""
        return next(iter(self.arrays.values())).dtype

    @property
    def wide(self) -> jnp.dtype:
        """The dtype of sums: float32, or that of the arrays if it is wider."""
        return accumulation_dtype(next(iter(self.arrays.values())))

    @property
    def there(self) -> jax.Array:
        """The examples ``[n]`` that have anything of any modality."""
        some = (jnp.any(x, axis=tuple(range(1, x.ndim))) for x in self.valid.values())
        return functools.reduce(jnp.logical_or, some)

    def product(
        self, factors: Mapping[str, jax.Array], *, initial: jax.Array | None = None
    ) -> jax.Array:
        """Product of ``initial`` and one factor per modality, without those of the missing ones."""
        kept = [
            jnp.where(_beside(self.valid[name], x), x, 1) for name, x in sorted(factors.items())
        ]
        return _fold(operator.mul, kept if initial is None else [initial, *kept])

    def fused(self, x: jax.Array) -> jax.Array:
        """Finish a result ``[n, ...]``: 0 for examples without a modality, in the inputs' dtype."""
        return jnp.where(_beside(self.there, x), x, 0).astype(self.dtype)


def check_content(content: Collection[str], inputs: Iterable[str]) -> None:
    """Raise ValueError unless ``content`` is one modality of the inputs, or several of them.

    >>> check_content(["video"], ["image", "text"])
    Traceback (most recent call last):
        ...
    ValueError: content must be among image, text, got video
    """
    if isinstance(content, str) or not all(isinstance(name, str) for name in content):
        raise ValueError(
            "content must be the name of a modality where there is one of them, and a tuple of"
            f" names where there may be several, got {content!r}"
        )
    if not content or not set(content) <= set(inputs):
        given, wanted = (", ".join(sorted(names)) or "none" for names in (inputs, content))
        raise ValueError(f"content must be among {given}, got {wanted}")


@checked
def linear(x: Float[Array, "*n d"], kernel: Float[Array, "d *k"]) -> Float[jax.Array, "..."]:
    """Contract the features of ``x`` in its own dtype; the sums are float32 or wider, and stay so.

    >>> linear(jnp.ones((2, 3)), jnp.ones((3, 4, 5))).shape
    (2, 4, 5)
    """
    kernel = jnp.asarray(kernel).astype(x.dtype)
    return jnp.tensordot(x, kernel, axes=1, preferred_element_type=accumulation_dtype(x))


@checked
def plus_bias(x: Float[jax.Array, "n *k"], bias: Float[Array, "*k"]) -> Float[jax.Array, "n *k"]:
    """Add a bias to every example, in the dtype of ``x``."""
    return x + jnp.asarray(bias).astype(x.dtype)[None]


def total(terms: Iterable[jax.Array]) -> jax.Array:
    """Sum of terms, all of one shape.

    >>> total([jnp.ones(2), jnp.ones(2)]).tolist()
    [2.0, 2.0]
    """
    return _fold(operator.add, terms)


def _fold(fold: Callable, terms: Iterable[jax.Array]) -> jax.Array:
    """Fold what has one shape: broadcasting would hide a parameter that is too narrow."""

    @checked
    def alike(x: Float[jax.Array, "*n"], y: Float[jax.Array, "*n"]) -> Float[jax.Array, "*n"]:
        return fold(x, y)

    return functools.reduce(alike, terms)


def _beside(mask: jax.Array, x: jax.Array) -> jax.Array:
    """The mask with further axes of size 1, to go with ``x``."""
    return mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim))
