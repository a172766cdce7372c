"""A step of the ledger gets its arguments by the names of its Lua function's parameters."""

import pytest

from digitq.protocol.ledger.script import arrange


def test_arguments_are_in_the_order_of_the_lua_function() -> None:
    assert arrange("requeue", worker="w", n=3) == [3, "w"]
    assert arrange("seal", "id", "j", total=5, base_row=10, base=1) == [1, 10, 5, "id", "j"]
    assert arrange("close", state="collected") == ["collected"]


def test_an_argument_that_no_parameter_has_is_refused() -> None:
    with pytest.raises(ValueError, match="'number' is not in list"):
        arrange("requeue", worker="w", number=3)
