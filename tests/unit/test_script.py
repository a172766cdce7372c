"""Each step of the ledger is a Lua function, and has the same parameters in Python."""

import pytest

from digitq.protocol.ledger import atomic
from digitq.protocol.ledger.script import ROOM, lua_step


def test_arguments_are_in_the_order_of_the_lua_function() -> None:
    assert atomic.requeue(worker="w", n=3) == ("requeue", (3, "w"))
    assert atomic.seal(1, 10, 5, "id", "j") == ("seal", (1, 10, 5, "id", "j"))


def test_an_optional_argument_that_is_left_out_is_not_sent() -> None:
    assert atomic.close("collected").arguments == ("collected",)
    assert atomic.renew(1, noted="").arguments == (1, "")


def test_every_lua_step_has_a_signature() -> None:
    signatures = {name for name, one in vars(atomic).items() if hasattr(one, "__wrapped__")}
    assert signatures == {file.stem for file in (ROOM / "steps").iterdir()}


def test_a_signature_with_other_parameters_than_the_lua_function_is_refused() -> None:
    def requeue(worker: str, n: int) -> None: ...

    with pytest.raises(
        TypeError, match=r"requeue.lua has no `function steps.requeue\(worker, n\)`"
    ):
        lua_step(requeue)

    def complete(n: int, *rest: str) -> None: ...

    with pytest.raises(TypeError, match=r"has no `function steps.complete\(n, \.\.\.\)`"):
        lua_step(complete)

    def begun(n: int) -> None: ...

    with pytest.raises(TypeError, match="begun.lua has no"):
        lua_step(begun)
