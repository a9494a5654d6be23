"""Settings as text: what two runs must have in common for one to go on where the other ended."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from inspect import signature
from types import CodeType, FunctionType

import numpy as np

from nnbrain.checkpoint import digest
from nnbrain.checks import Stored


def settings_of(rule: object) -> str:
    """Return a rule's settings as text: the same in another process, and other where a setting is.

    A dataclass is its name and what it was made from, another object its name and attributes; a function
    its name, its defaults and the variables that it closes over, a lambda its code too; an array its digest.
    Not looked at: the code of what has a name, and global variables.

    Raises
    ------
    TypeError
        If there is something in it of which text does not tell all, as a random generator.
    """
    if isinstance(rule, FunctionType):
        return _function(rule)
    if isinstance(rule, partial):
        return f"partial{settings_of((rule.func, *rule.args, rule.keywords))}"
    if is_dataclass(rule) and not isinstance(rule, type):
        made_from = {field.name: getattr(rule, field.name) for field in fields(rule) if field.init}
        return f"{type(rule).__qualname__}({_named(made_from)})"
    if isinstance(rule, np.ndarray | Stored):
        return f"array({digest(rule)})"
    if isinstance(rule, Mapping):
        return "{" + ", ".join(f"{key!r}: {settings_of(value)}" for key, value in rule.items()) + "}"
    if isinstance(rule, tuple | list):
        return "(" + ", ".join(map(settings_of, rule)) + ")"
    if isinstance(rule, set | frozenset):
        return "{" + ", ".join(sorted(map(settings_of, rule))) + "}"
    if type(rule).__repr__ is object.__repr__ and hasattr(rule, "__dict__"):
        return f"{type(rule).__qualname__}({_named(vars(rule))})"
    text = repr(rule)
    if " at 0x" in text:  # where in memory it lies, instead of what it is
        raise TypeError(
            "settings must be numbers, strings, arrays, functions, or dataclasses of these, for runs to be "
            f"compared, got {text}; write a rule that needs it as a dataclass with its settings"
        )
    return text


def _function(function: FunctionType) -> str:
    code = function.__code__
    parameters = signature(function).parameters.values()
    known = {p.name: p.default for p in parameters if p.default is not p.empty}
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        if cell.cell_contents is not function:  # which may call itself
            known[name] = cell.cell_contents
    if function.__name__ == "<lambda>":
        constants = [value for value in code.co_consts if not isinstance(value, CodeType)]
        known["code"] = code.co_code.hex(), code.co_names, constants
    return f"<function {function.__qualname__}{f'({_named(known)})' if known else ''}>"


def _named(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name}={settings_of(value)}" for name, value in values.items())
