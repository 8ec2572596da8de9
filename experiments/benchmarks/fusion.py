"""Memory of tensor fusion against low-rank fusion, as a picture.

Compiles value and gradient for modalities of more and more features and reads what XLA needs for
parameters, gradients and everything in between; nothing is run, so that no tensor is too large.
Needs matplotlib::

    python -m experiments.benchmarks.fusion --picture=notebooks/images/fusion_memory.png
"""

import pathlib
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from absl import app, flags

from mmjax.fusion import LowRankFusion, TensorFusion

PICTURE = flags.DEFINE_string("picture", "fusion_memory.png", "file to write")
SIZES = flags.DEFINE_list("sizes", [2**k for k in range(3, 9)], "features of each modality")
ROWS = flags.DEFINE_integer("rows", 128, "examples of a batch", lower_bound=1)
FEATURES = flags.DEFINE_integer("features", 64, "fused features", lower_bound=1)
RANK = flags.DEFINE_integer("rank", 4, "of low-rank fusion", lower_bound=1)
MODALITIES = (2, 3)

Curves = Mapping[str, list[float]]  # MiB for each size


def needed(module: nn.Module, modalities: int, rows: int, size: int) -> float:
    """MiB that value and gradient take, with parameters, inputs and the gradients of both.

    Args:
        module: the operator.
        modalities: how many of them.
        rows: examples of the batch.
        size: features of each modality.

    Raises:
        ValueError: if this backend does not tell what a program needs.
    """
    inputs = {f"x{m}": jax.ShapeDtypeStruct((rows, size), jnp.float32) for m in range(modalities)}
    variables = nn.unbox(jax.eval_shape(module.init, jax.random.key(0), inputs))

    def value(variables, inputs):
        return jnp.sum(jnp.asarray(module.apply(variables, inputs)) ** 2)

    program = jax.jit(jax.value_and_grad(value, (0, 1))).lower(variables, inputs).compile()
    memory = program.memory_analysis()
    if memory is None:
        raise ValueError("this backend does not tell what a program needs: use a CPU")
    parts = ("argument_size_in_bytes", "output_size_in_bytes", "temp_size_in_bytes")
    return sum(getattr(memory, part) for part in parts) / 2**20


def curves(modalities: int, sizes: list[int], rows: int, features: int, rank: int) -> Curves:
    """Memory of both operators, by their names, for each size."""
    operators = {
        "tensor": TensorFusion(features),
        "low_rank": LowRankFusion(features, rank),
    }
    return {
        name: [needed(module, modalities, rows, size) for size in sizes]
        for name, module in operators.items()
    }


def draw(found: Mapping[int, Curves], sizes: list[int], path: pathlib.Path) -> None:
    """Write one panel for each number of modalities, both axes logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    styles = {
        "tensor": ("#b3432b", "o", "tensor fusion: every product has a weight"),
        "low_rank": ("#2456a6", "s", f"low-rank fusion, rank {RANK.value}"),
    }
    figure, panels = pyplot.subplots(1, len(found), figsize=(9.6, 3.6), sharey=True)
    for panel, (modalities, by_name) in zip(panels, found.items(), strict=True):
        for name, (colour, marker, label) in styles.items():
            panel.loglog(
                sizes, by_name[name], color=colour, marker=marker, markersize=4, label=label
            )
        panel.set_title(f"{modalities} modalities", loc="left", fontsize=11)
        panel.set_xticks(sizes, sizes)
        panel.minorticks_off()
        panel.set_yticks([0.1, 1, 10, 100, 1024, 10240])
        panel.set_yticklabels(["0.1 MiB", "1 MiB", "10 MiB", "100 MiB", "1 GiB", "10 GiB"])
        panel.set_xlabel("features of each modality")
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("value and gradient")
    panels[-1].legend(frameon=False, fontsize=8, loc="upper left")
    figure.tight_layout()
    figure.savefig(path, dpi=130)


def main(_: list[str]) -> None:
    """Do what the flags say."""
    try:
        sizes = [int(size) for size in SIZES.value]
        found = {
            modalities: curves(modalities, sizes, ROWS.value, FEATURES.value, RANK.value)
            for modalities in MODALITIES
        }
        for modalities, by_name in found.items():
            print(
                f"{modalities} modalities, MiB for value and gradient of {ROWS.value} rows,"
                f" {FEATURES.value} fused features, float32"
            )
            print(f"{'features':>9}" + "".join(f"{name:>12}" for name in by_name))
            for i, size in enumerate(sizes):
                print(f"{size:>9,}" + "".join(f"{mib[i]:>12,.2f}" for mib in by_name.values()))
        draw(found, sizes, pathlib.Path(PICTURE.value))
        print(f"written to {PICTURE.value}")
    except (ValueError, OSError, ImportError) as error:  # what a user can mend
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    app.run(main)
