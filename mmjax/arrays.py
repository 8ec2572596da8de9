"""Array annotations that are checked while tracing, so they cost nothing once compiled."""

import functools
import math
from collections.abc import Callable
from typing import TypeAlias, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from beartype import beartype
from jax.typing import DTypeLike
from jaxtyping import Real, jaxtyped

Array: TypeAlias = jax.Array | np.ndarray  # a user's NumPy rows are as welcome as JAX ones
Scalar: TypeAlias = Real[Array, ""] | Real[np.number, ""] | float | int
AxisName: TypeAlias = str | tuple[str, ...]  # a tuple shards the rows over several mesh axes

F = TypeVar("F", bound=Callable)


def checked(function: F) -> F:
    """Check the annotated shapes and dtypes of ``function`` on every call, or while it is traced.

    Args:
        function: annotated with jaxtyping; one axis name stands for one size in each call.

    Returns:
        The same function; a wrong shape or dtype raises ``jaxtyping.TypeCheckError``.

    >>> @checked
    ... def dot(x: Real[Array, "n"], y: Real[Array, "n"]) -> Real[Array, ""]:
    ...     return jnp.dot(x, y)
    >>> dot(jnp.ones(2), jnp.ones(3))
    Traceback (most recent call last):
        ...
    jaxtyping.TypeCheckError: Type-check error whilst checking the parameters of ...
    """
    return cast(F, jaxtyped(function, typechecker=beartype))


def accumulation_dtype(*arrays: Array) -> np.dtype:
    """Dtype in which sums over ``arrays`` run: float32, or wider if an array is wider.

    Args:
        *arrays: floating-point arrays of any shape and of any mixture of dtypes.

    Returns:
        float32 for bfloat16, float16 and float32; float64 as soon as one array is float64
        and JAX runs with ``jax_enable_x64``.

    >>> accumulation_dtype(jnp.ones(2, jnp.bfloat16), np.ones(3, np.float32)).name
    'float32'
    """
    # JAX's own promotion refuses to mix dtypes where a user has made it strict; NumPy's does not.
    dtypes = (jnp.result_type(x) for x in arrays)  # float64 only where JAX would keep it
    return functools.reduce(np.promote_types, dtypes, np.dtype(np.float32))


def as_scalar(name: str, value: Scalar, *, dtype: DTypeLike, positive: bool = False) -> jax.Array:
    """Turn an option of a function into an array, refusing what can be seen to be wrong.

    The value of a traced or on-device scalar is unknown here (reading it would wait for the
    device), so that only Python and NumPy numbers are checked.

    Args:
        name: what the message calls the value.
        value: a Python or NumPy number, or an array of shape ``()``.
        dtype: the dtype of the result; gradients flow back in the dtype of ``value``.
        positive: also refuse zero and negative numbers.

    Returns:
        The value as an array of shape ``()``.

    Raises:
        ValueError: if a Python or NumPy number is not finite, or not positive where it has to be.

    >>> as_scalar("temperature", -1, dtype=jnp.float32, positive=True)
    Traceback (most recent call last):
        ...
    ValueError: temperature must be positive and finite, got -1
    """
    if not isinstance(value, jax.Array):
        number = float(value)
        if not math.isfinite(number) or (positive and number <= 0):
            wanted = "positive and finite" if positive else "finite"
            raise ValueError(f"{name} must be {wanted}, got {value}")
    return jnp.asarray(value).astype(dtype)
