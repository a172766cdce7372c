"""The worker's Celery app: where its ledger is."""

import os
from types import SimpleNamespace

import pytest

from protocol.errors import UsageError
from protocol.settings import settings
from worker.celery import app, follow_celery

OTHER = "redis://other:6380/2"
SOCKET = "redis+socket:///run/a%20b.sock?virtual_host=3"


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIGITQ_BROKER_URL", "to be set back")
    monkeypatch.delenv("DIGITQ_BROKER_URL")
    monkeypatch.setenv("CELERY_BROKER_URL", "as it came")
    settings.cache_clear()


@pytest.mark.parametrize("told", [OTHER, SOCKET])
def test_the_ledger_is_where_celery_is_told_that_the_queue_is(told: str) -> None:
    """By `-b` or by a variable of Celery."""
    conf = SimpleNamespace(broker_read_url=told, digitq_database_url="redis://localhost:6379/0")
    follow_celery(conf)
    assert conf.digitq_database_url == told.replace("redis+socket", "unix").replace(
        "virtual_host", "db"
    )
    assert os.environ["CELERY_BROKER_URL"] == told
    assert (
        os.environ["DIGITQ_BROKER_URL"] == conf.digitq_database_url
    )  # for processes that it starts


def test_a_worker_is_not_told_of_two_brokers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIGITQ_BROKER_URL", "redis://one")
    settings.cache_clear()
    conf = SimpleNamespace(broker_read_url=OTHER, digitq_database_url="redis://one")
    with pytest.raises(
        UsageError, match="-b, BROKER_URL or .* another broker than DIGITQ_BROKER_URL"
    ):
        follow_celery(conf)
    same = SimpleNamespace(broker_read_url="redis://one/0", digitq_database_url="redis://one")
    follow_celery(same)
    assert same.digitq_database_url == "redis://one"


def test_celery_and_flower_show_no_password() -> None:
    shown = app.conf.table(with_defaults=False, censored=True)
    assert shown["digitq_database_url"] == "*" * 8


def test_messages_are_json_alone() -> None:
    assert app.conf.accept_content == ["json"]
