import flax.linen as nn
import jax
import numpy as np
import pytest

from mmjax.fusion.parameters import make_bias, make_kernel


class Owner(nn.Module):
    shape: tuple[int, ...]
    contracted: int

    @nn.compact
    def __call__(self):
        kernel = make_kernel(self, "kernel", *self.shape, contracted=self.contracted)
        return kernel, make_bias(self, "bias", self.shape[-1])


@pytest.mark.parametrize(("shape", "name"), [((3, 0), "kernel"), ((0, 3), "kernel"), ((-1,), "k")])
def test_a_parameter_of_nothing_is_refused(shape, name):
    with pytest.raises(ValueError, match=rf"{name}.* must have sizes of at least 1, got \("):
        jax.eval_shape(Owner(shape, 1).init, jax.random.key(0))


@pytest.mark.parametrize("contracted", [0, 2])
def test_unit_variance_goes_in_and_comes_out(contracted):
    (kernel, bias), _ = Owner((30, 20, 10), contracted).init_with_output(jax.random.key(0))
    outputs = np.reshape(kernel, (np.prod((30, 20)[:contracted], dtype=int), -1))
    np.testing.assert_allclose((outputs**2).sum(axis=0).mean(), 1, rtol=0.05)
    assert not np.any(bias)
