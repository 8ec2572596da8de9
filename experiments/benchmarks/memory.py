"""The memory curve of a loss, as a picture: ``python -m experiments.benchmarks.memory``.

Compiles value and gradient for growing batches and reads what XLA sets aside on each device beside
arguments and results; nothing is run, so that no batch is too large. Needs matplotlib::

    python -m experiments.benchmarks.memory --picture=notebooks/images/loss_memory.png
"""

import pathlib
from collections.abc import Mapping

import jax
from absl import app, flags
from jax.sharding import Mesh

import mmjax.losses
from experiments.benchmarks import textbook
from experiments.benchmarks.contrastive import CONTESTS, problem_of
from experiments.benchmarks.entrants import dense, device_mesh, ours

PICTURE = flags.DEFINE_string("picture", "loss_memory.png", "file to write")
SIZES = flags.DEFINE_list("sizes", [2**k for k in range(11, 18)], "rows of the global batches")
FEATURES = flags.DEFINE_integer("features", 512, "features of a row", lower_bound=1)
VIRTUAL = flags.DEFINE_integer("virtual_devices", 8, "devices on a CPU", lower_bound=2)
SHOWN = ("clip_loss", "siglip_loss")

Curves = Mapping[str, list[float]]  # MiB on each device for each size


def curves(name: str, sizes: list[int], features: int, mesh: Mesh) -> Curves:
    """Memory of one loss in each of its forms.

    Args:
        name: of the loss.
        sizes: rows of the global batches.
        features: of a row.
        mesh: the devices that share the rows.

    Returns:
        By the name of a form, MiB on each device for each size.
    """
    forms = {"dense": None, "gathered": {}, "ring": {"ring": True}}
    found: dict[str, list[float]] = {form: [] for form in forms}
    for size in sizes:
        problem = problem_of(CONTESTS[name], size, features, "bfloat16")
        for form, options in forms.items():
            if options is None:
                entrant = dense(form, getattr(textbook, name), problem, mesh)
            else:
                entrant = ours(form, getattr(mmjax.losses, name), problem, mesh, **options)
            if entrant.compiled is None:
                raise ValueError("this backend does not tell what a program needs: use a CPU")
            found[form].append(entrant.compiled / 2**20)
    return found


def draw(found: Mapping[str, Curves], sizes: list[int], path: pathlib.Path) -> None:
    """Write one panel for each loss, both axes logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    styles = {
        "dense": ("#b3432b", "o", "dense: all scores are kept"),
        "gathered": ("#2456a6", "s", "mmjax: blocks of 1,024, columns gathered"),
        "ring": ("#2a7d4f", "^", "mmjax: blocks of 1,024, columns in a ring"),
    }
    figure, panels = pyplot.subplots(1, len(found), figsize=(9.6, 3.6), sharey=True)
    for panel, (name, by_form) in zip(panels, found.items(), strict=True):
        for form, (colour, marker, label) in styles.items():
            panel.loglog(
                sizes, by_form[form], color=colour, marker=marker, markersize=4, label=label
            )
        panel.set_title(name, loc="left", fontsize=11, family="monospace")
        panel.set_xticks(sizes, [f"{size // 1024}k" for size in sizes])
        panel.minorticks_off()
        panel.set_yticks([10, 100, 1024, 10240], ["10 MiB", "100 MiB", "1 GiB", "10 GiB"])
        panel.set_xlabel("rows of the global batch, on 8 devices")
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("on each device")
    panels[0].legend(frameon=False, fontsize=8, loc="upper left")
    figure.tight_layout()
    figure.savefig(path, dpi=130)


def main(_: list[str]) -> None:
    """Do what the flags say."""
    try:
        sizes = [int(size) for size in SIZES.value]
        jax.config.update("jax_num_cpu_devices", VIRTUAL.value)
        mesh = device_mesh(VIRTUAL.value)
        found = {name: curves(name, sizes, FEATURES.value, mesh) for name in SHOWN}
        for name, by_form in found.items():
            print(f"{name}, MiB on each of {mesh.size} devices, d = {FEATURES.value}, bfloat16")
            print(f"{'rows':>9}" + "".join(f"{form:>12}" for form in by_form))
            for i, size in enumerate(sizes):
                print(f"{size:>9,}" + "".join(f"{mib[i]:>12,.1f}" for mib in by_form.values()))
        draw(found, sizes, pathlib.Path(PICTURE.value))
        print(f"written to {PICTURE.value}")
    except (ValueError, OSError, ImportError) as error:  # what a user can mend
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    app.run(main)
