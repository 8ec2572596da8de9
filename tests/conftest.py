"""Eight virtual CPU devices and JAX at its strictest, for every test."""

import atexit
import os
import shutil
import tempfile

# Sharding is tested on virtual CPU devices, also on a machine that has an accelerator. JAX reads
# this when it is imported.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

# A program is compiled once a session: many tests run the same tiny one, some in a process of
# their own. Nothing outlives the session, unless the caller names a folder.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="mmjax-compiled-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# Of the two code generators of JAX 0.10, the other one compiles in half the time. What tests start
# as processes of their own is to be as users' are.
if jax.__version_info__ < (0, 11) and "XLA_FLAGS" not in os.environ:
    os.environ["XLA_FLAGS"] = "--xla_cpu_use_fusion_emitters=false"
    jax.devices()  # reads it
    del os.environ["XLA_FLAGS"]


@pytest.fixture(autouse=True, scope="module")
def forget_programs_of_a_file():
    """A process may have 65,530 mappings of memory, and compiled programs take several each."""
    yield
    jax.clear_caches()
