"""The reproduction on the data itself where it is there, and its measure by hand everywhere."""

import os
import pathlib
import types

import jax
import numpy as np
import pytest

from experiments.reproduce import wikipedia_retrieval
from experiments.reproduce.wikipedia_retrieval import mean_average_precision, read, reproduce

FOLDER = pathlib.Path(os.environ.get("MMJAX_DATA", "")) / "wikipedia_crossmodal"


def test_precision_is_averaged_over_the_right_ones():
    candidates = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])  # in this order for the query
    same = np.array([[False, True, True]])
    found = mean_average_precision(np.array([[2.0, 0.1]]), candidates, same)
    assert found == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert mean_average_precision(np.array([[2.0, 0.1]]), candidates, ~same) == pytest.approx(1)


def test_the_command_says_where_the_data_has_to_be(monkeypatch):
    monkeypatch.delenv("MMJAX_DATA", raising=False)
    monkeypatch.setattr(jax.config, "update", lambda *_: None)
    with pytest.raises(SystemExit, match="set MMJAX_DATA to the folder"):
        wikipedia_retrieval.main([])


@pytest.mark.skipif(not FOLDER.is_dir(), reason="MMJAX_DATA/wikipedia_crossmodal is not there")
@pytest.mark.parametrize(("given", "message"), [([], "need a number each"), (["a"], "'a'")])
def test_ridges_that_cannot_be_are_told(given, message, monkeypatch):
    monkeypatch.setattr(jax.config, "update", lambda *_: None)
    for name, values in {"RIDGES": given, "DECAYS": ["1"]}.items():
        monkeypatch.setattr(wikipedia_retrieval, name, types.SimpleNamespace(value=values))
    with pytest.raises(SystemExit, match=message):
        wikipedia_retrieval.main([])


@pytest.mark.skipif(not FOLDER.is_dir(), reason="MMJAX_DATA/wikipedia_crossmodal is not there")
def test_the_published_precision_is_reached(capsys):
    train, test = read(FOLDER)
    assert (len(train.categories), len(test.categories)) == (2173, 693)
    with jax.enable_x64(True):
        found = reproduce(train, test, ridges=[1e-4], decays=[1e-3, 1e-1], seed=0)
    assert found["correlation"][0] >= 0.24
    assert found["correlation"][1] >= 0.19
    assert min(found["semantic"]) >= 0.22
    assert "| correlation | 0.2" in capsys.readouterr().out
