"""Classification by the nearest class name: no label is ever trained on."""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from mmjax.arrays import Array, checked
from mmjax.evaluation.embed import Embedded
from mmjax.metrics.classification import top_k_accuracy


@checked
def class_embeddings(
    encode_texts: Callable[[Sequence[str]], Array],
    classes: Sequence[str],
    templates: Sequence[str],
) -> Float[Array, "c d"]:
    r"""One unit row per class: the mean over prompts that name it.

    .. math:: w_c = \frac{\bar t_c}{\lVert \bar t_c \rVert}, \quad
              \bar t_c = \frac{1}{|P|} \sum_{p \in P} t(p(c))

    Args:
        encode_texts: turns texts into unit-norm rows. It is called once per template, always
            with as many texts as there are classes, so it compiles once.
        classes: distinct class names.
        templates: prompts in which ``{}`` stands for the name, such as "a photo of a {}".

    Returns:
        Unit-norm rows in the order of ``classes``.

    Raises:
        ValueError: if classes or templates are empty, a class comes twice, or a template does
            not hold ``{}``.

    Source: Radford et al. 2021, arXiv:2103.00020, sec. 3.1.4 (prompt ensembling).
    """
    if not classes or not templates:
        raise ValueError(f"got {len(classes)} classes and {len(templates)} templates; need both")
    if len(set(classes)) != len(classes):
        raise ValueError(f"class names must be distinct, got {list(classes)}")
    for template in templates:
        if "{}" not in template:
            raise ValueError(f"template {template!r} does not hold '{{}}' for the class name")
    # Not str.format: a class name or a template may hold braces of its own.
    prompts = [[template.replace("{}", name) for name in classes] for template in templates]
    total = sum(jnp.asarray(encode_texts(texts), jnp.float32) for texts in prompts)
    norm = jnp.linalg.norm(total, axis=-1, keepdims=True)
    return total / jnp.maximum(norm, 1e-12)  # Prompts that cancel exactly leave a zero row.


@checked
def zero_shot_scores(
    rows: Float[Array, "n d"], class_rows: Float[Array, "c d"]
) -> Float[Array, "n c"]:
    """Cosine of every row with every class.

    Args:
        rows: unit-norm embeddings of what is to be classified.
        class_rows: unit-norm rows from :func:`class_embeddings`.

    Returns:
        Float32 scores in [-1, 1].

    >>> print(zero_shot_scores(jnp.eye(2), jnp.eye(2)[1:]).ravel())
    [0. 1.]
    """
    return jnp.matmul(rows, class_rows.T, preferred_element_type=jnp.float32)


@checked
def zero_shot_accuracy(
    embedded: Embedded,
    classes: Sequence[str],
    class_rows: Float[Array, "c d"],
    *,
    modality: str = "image",
    ks: Sequence[int] = (1, 5),
) -> dict[str, float]:
    """Share of values whose label is among the k nearest classes, ties against us.

    Args:
        embedded: values with labels. A record whose label is not one of ``classes`` is left out.
        classes: class names, in the order of ``class_rows``.
        class_rows: unit-norm rows from :func:`class_embeddings`.
        modality: what is classified.
        ks: the cut-offs. One that reaches the number of classes is left out of the result, for
            the accuracy would be 1 whatever the scores.

    Returns:
        ``zero_shot_accuracy@<k>``, fractions in [0, 1].

    Raises:
        ValueError: if ``classes`` and ``class_rows`` differ in length, the modality was not
            embedded, or no value has one of the labels.
    """
    if len(classes) != len(class_rows):
        raise ValueError(f"{len(classes)} class names for {len(class_rows)} class rows")
    if modality not in embedded.embeddings:
        raise ValueError(f"{modality!r} is not embedded, only {sorted(embedded.embeddings)}")
    number = {name: index for index, name in enumerate(classes)}
    of_record = np.asarray([number.get(label, -1) for label in embedded.labels], np.int32)
    labels = of_record[embedded.owners[modality]]
    counts = labels >= 0
    if not counts.any():
        raise ValueError(f"no {modality} has a label that is one of the {len(classes)} classes")
    scores = zero_shot_scores(embedded.embeddings[modality][counts], class_rows)
    return {
        f"zero_shot_accuracy@{k}": float(top_k_accuracy(scores, labels[counts], k=k))
        for k in ks
        if k < len(classes)
    }
