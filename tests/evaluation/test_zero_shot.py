import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.evaluation.embed import Embedded
from mmjax.evaluation.zero_shot import class_embeddings, zero_shot_accuracy, zero_shot_scores

PROMPTS = {
    "a cat": [1.0, 0.0, 0.0],
    "one cat": [0.0, 1.0, 0.0],
    "a dog {x}": [0.0, 0.0, 1.0],
    "one dog {x}": [0.0, 0.0, 1.0],
    "a bat": [0.6, 0.0, 0.8],
    "one bat": [-0.6, 0.0, -0.8],
}


def encode(texts):
    return np.asarray([PROMPTS[text] for text in texts], np.float32)


def test_a_class_is_the_unit_mean_of_its_prompts():
    rows = class_embeddings(encode, ["cat", "dog {x}"], ["a {}", "one {}"])
    half = 1 / np.sqrt(2)
    np.testing.assert_allclose(rows, [[half, half, 0], [0, 0, 1]], rtol=1e-6)


def test_prompts_that_cancel_leave_zeros_and_no_nan():
    rows = class_embeddings(encode, ["bat"], ["a {}", "one {}"])
    np.testing.assert_array_equal(rows, np.zeros((1, 3)))


@pytest.mark.parametrize(
    ("classes", "templates", "message"),
    [
        (["cat"], ["a cat"], "does not hold '{}'"),
        ([], ["a {}"], "need both"),
        (["cat"], [], "need both"),
        (["cat", "cat"], ["a {}"], "distinct"),
    ],
)
def test_classes_and_templates_that_cannot_work(classes, templates, message):
    with pytest.raises(ValueError, match=message):
        class_embeddings(encode, classes, templates)


def test_scores_are_inner_products_in_float32():
    rows, classes = jnp.asarray([[0.6, 0.8]], jnp.bfloat16), jnp.eye(2, dtype=jnp.bfloat16)
    scores = zero_shot_scores(rows, classes)
    assert scores.dtype == jnp.float32
    np.testing.assert_allclose(scores, [[0.6, 0.8]], atol=2e-3)


def embedded(labels):
    rows = np.asarray([[1, 0, 0], [0.8, 0.6, 0], [0, 0, 1]], np.float32)
    order = np.arange(3, dtype=np.int32)
    return Embedded(("x", "y", "z"), order, {"image": rows}, {"image": order}, labels)


def test_accuracy_counts_the_records_whose_label_is_a_class():
    classes = ("one", "two", "three")
    rows = jnp.eye(3)
    # x is nearest to one: right. y is nearest to one, then two: right at 2. z has another label.
    metrics = zero_shot_accuracy(embedded(("one", "two", "four")), classes, rows, ks=(1, 2))
    assert metrics == {"zero_shot_accuracy@1": 0.5, "zero_shot_accuracy@2": 1.0}


def test_a_cutoff_that_reaches_all_classes_says_nothing_and_is_left_out():
    metrics = zero_shot_accuracy(embedded(("one", "", "")), ("one", "two", "three"), jnp.eye(3))
    assert metrics == {"zero_shot_accuracy@1": 1.0}


@pytest.mark.parametrize(
    ("labels", "classes", "modality", "message"),
    [
        (("", "", ""), ("one", "two", "three"), "image", "no image has a label"),
        (("one", "", ""), ("one", "two"), "image", "2 class names for 3 class rows"),
        (("one", "", ""), ("one", "two", "three"), "audio", "'audio' is not embedded"),
    ],
)
def test_what_cannot_be_classified_says_so(labels, classes, modality, message):
    with pytest.raises(ValueError, match=message):
        zero_shot_accuracy(embedded(labels), classes, jnp.eye(3), modality=modality)
