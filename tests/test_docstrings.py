"""Everything public is documented, and the pure functions in full."""

import doctest
import importlib
import inspect
import pkgutil

import pytest

import mmjax

MODULES = [
    importlib.import_module(found.name)
    for found in pkgutil.walk_packages(mmjax.__path__, prefix="mmjax.")
]


def public(module):
    """Functions and classes that the module itself defines."""
    for name, thing in vars(module).items():
        if name.startswith("_") or not (inspect.isfunction(thing) or inspect.isclass(thing)):
            continue
        if thing.__module__ == module.__name__:
            yield name, thing


EVERYTHING = {f"{m.__name__}.{name}": thing for m in MODULES for name, thing in public(m)}
PURE = {
    name: thing
    for name, thing in EVERYTHING.items()
    if name.startswith(("mmjax.losses.", "mmjax.metrics.")) and inspect.isfunction(thing)
}


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_every_module_says_what_it_is_for(module):
    assert module.__doc__
    assert set(getattr(module, "__all__", [])) <= set(vars(module))


@pytest.mark.parametrize("name", EVERYTHING)
def test_everything_public_is_documented(name):
    thing = EVERYTHING[name]
    doc = thing.__doc__
    assert doc, f"{name} has no docstring"
    generated = f"{thing.__name__}("  # what dataclasses and named tuples write for themselves
    assert not doc.startswith(generated), f"{name} has a generated docstring"


@pytest.mark.parametrize("name", PURE)
def test_pure_functions_are_documented_in_full(name):
    function = PURE[name]
    doc = inspect.getdoc(function)
    for section in ("Args:", "Returns:", "Source:"):
        assert f"\n{section}" in doc, f"{name} has no {section}"
    arguments = doc.partition("\nArgs:")[2].partition("\nReturns:")[0]
    for argument in inspect.signature(function).parameters:
        assert f"\n    {argument}: " in arguments, f"{name} does not say what {argument} is"
    assert doctest.DocTestParser().get_examples(doc), f"{name} has no example"


def test_the_pure_functions_are_found():
    assert {"mmjax.losses.contrastive.clip_loss", "mmjax.metrics.retrieval.recall_at"} <= set(PURE)
