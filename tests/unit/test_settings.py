"""Settings come from `DIGITQ_*` variables only; a wrong value is named in one line."""

from pathlib import Path

import pytest

from digitq.protocol.errors import UsageError
from digitq.protocol.settings import settings


def test_a_variable_sets_its_field(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIGITQ_CHUNK_ROWS", "64")
    monkeypatch.setenv("DIGITQ_MNIST", "/data/mnist")
    assert settings().chunk_rows == 64
    assert settings().mnist_root == Path("/data/mnist")


def test_without_its_variable_mnist_lies_in_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DIGITQ_MNIST", raising=False)
    monkeypatch.setenv("DIGITQ_CACHE_DIR", "~/x")
    assert settings().mnist_root == Path.home() / "x"


@pytest.mark.parametrize(("name", "value"), [("CHUNK_ROWS", "0"), ("WINDOW_CHUNKS", "many")])
def test_a_wrong_value_is_named(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"DIGITQ_{name}", value)
    with pytest.raises(UsageError, match=f"DIGITQ_{name}='{value}'"):
        settings()
