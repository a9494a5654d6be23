"""Settings as text: the same for rules that do the same, other for others, none where text cannot tell."""

import subprocess
import sys
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pytest

from nnbrain.mlp import SGD
from nnbrain.settings import settings_of


def make(group, scale=1.0):
    def select(clients, n, offset=0):
        return [scale * (k + offset) for k in group][:n]

    return select


def recursive(depth):
    def descend(n):
        return descend(n - 1) if n else depth

    return descend


@dataclass(frozen=True)
class Rule:
    table: np.ndarray = field(repr=False)
    inner: object = None


class Plain:
    def __init__(self, rate):
        self.rate = rate


def many(changed):
    """An array so long that its own text lacks the middle."""
    values = np.zeros(5000)
    values[2500] = changed
    return values


MAKERS = {
    "a closure over a number": make,
    "a closure over an array": lambda k: make(many(k)),
    "a closure in a dataclass": lambda k: Rule(np.zeros(2), make([k])),
    "an array without a text": lambda k: Rule(many(k)),
    "a default": lambda k: make([1], scale=k),
    "a lambda over a number": lambda k: lambda step: k / (1 + step),
    "a schedule": lambda k: SGD(lambda step: k / (1 + step)),
    "a function that calls itself": recursive,
    "a partial": lambda k: partial(make, scale=k),
    "an object": Plain,
    "a set": lambda k: {"a", "b", k},
    "a mapping": lambda k: {"clients": [k, 2]},
}


@pytest.mark.parametrize("maker", MAKERS.values(), ids=MAKERS)
def test_other_settings_give_other_texts_and_the_same_the_same(maker):
    assert settings_of(maker(1)) == settings_of(maker(1))
    assert settings_of(maker(1)) != settings_of(maker(2))
    assert " at 0x" not in settings_of(maker(1))


def test_two_lambdas_differ_by_their_code_and_functions_by_their_names():
    assert settings_of(lambda step: 0.1) != settings_of(lambda step: 0.2)
    assert settings_of(lambda step: min(1, step)) != settings_of(lambda step: max(1, step))
    assert settings_of(make) == "<function make(scale=1.0)>"
    assert settings_of(recursive) == "<function recursive>"


def test_another_process_has_the_same_text():
    """There, strings hash to other numbers, and sets of them have another order."""
    rule = "partial(min, {'a', 'b', 'c', 'd'}, lambda step: 1 / (1 + step))"
    code = (
        f"from functools import partial; from nnbrain.settings import settings_of; print(settings_of({rule}))"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == settings_of(eval(rule))


@pytest.mark.parametrize("inner", [np.random.default_rng(0), iter([1])])
def test_what_text_cannot_tell_is_refused_with_advice(inner):
    for rule in (Rule(np.zeros(1), inner), make(inner)):
        with pytest.raises(TypeError, match=r"settings must be .* at 0x.*; write a rule .* as a dataclass"):
            settings_of(rule)
