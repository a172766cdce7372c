"""The Python signatures of the ledger's steps are those of its Lua functions."""

import inspect
import re

from protocol import ledger_steps
from protocol.ledger import SCRIPT


def test_each_step_has_the_same_parameters_in_python_and_in_lua() -> None:
    in_lua = {
        name: parameters.replace("...", "fields").split(", ") if parameters else []
        for name, parameters in re.findall(r"^function steps\.(\w+)\((.*?)\)", SCRIPT, re.M)
    }
    in_python = {
        name: [*inspect.signature(member).parameters]
        for name, member in vars(ledger_steps).items()
        if hasattr(member, "__wrapped__")
    }
    assert in_python == in_lua and len(in_lua) > 15


def test_a_call_gives_the_arguments_in_the_order_of_the_signature() -> None:
    assert ledger_steps.requeue(worker="w", n=3) == ["requeue", 3, "w"]
    assert ledger_steps.seal(0, 0, 5, "id", "j") == ["seal", 0, 0, 5, "id", "j"]
    assert ledger_steps.close("collected") == ["close", "collected"]
