"""The worker's Celery app: where its ledger is."""

import os
from types import SimpleNamespace

import pytest

from digitq.protocol.errors import UsageError
from digitq.protocol.settings import settings
from digitq.worker.celery import app, follow_celery

OTHER = "redis://other:6380/2"
SOCKET = "redis+socket:///run/a%20b.sock?virtual_host=3"


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIGITQ_BROKER_URL", "to be set back")
    monkeypatch.delenv("DIGITQ_BROKER_URL")
    monkeypatch.setenv("CELERY_BROKER_URL", "as it came")
    settings.cache_clear()


class Conf(SimpleNamespace):
    def update(self, values: dict[str, object]) -> None:
        vars(self).update(values)


def conf_of(told: str, own: str) -> Conf:
    """A configuration in which Celery and the ledger have these brokers."""
    return Conf(broker_read_url=told, digitq_database_url=own, broker_transport_options={})


@pytest.mark.parametrize("told", [OTHER, SOCKET])
def test_the_ledger_is_where_celery_is_told_that_the_queue_is(told: str) -> None:
    """By `-b` or by a variable of Celery."""
    conf = conf_of(told, "redis://localhost:6379/0")
    follow_celery(conf)
    assert conf.digitq_database_url == told.replace("redis+socket", "unix").replace(
        "virtual_host", "db"
    )
    assert os.environ["CELERY_BROKER_URL"] == told
    assert (
        os.environ["DIGITQ_BROKER_URL"] == conf.digitq_database_url
    )  # for processes that it starts


@pytest.mark.parametrize(
    ("told", "of_celery", "of_the_ledger"),
    [
        ("valkey://h/1", "redis://h/1", "redis://h/1"),
        (
            "sentinel://h,i/1?master_name=m",
            "sentinel://h:26379/1;sentinel://i:26379/1",
            "sentinel://h:26379,i:26379/1?master_name=m",
        ),
    ],
)
def test_celery_is_told_a_url_that_it_would_not_understand(
    told: str, of_celery: str, of_the_ledger: str
) -> None:
    conf = conf_of(told, "redis://localhost:6379/0")
    follow_celery(conf)
    assert conf.digitq_database_url == of_the_ledger
    assert os.environ["CELERY_BROKER_URL"] == conf.result_backend == of_celery
    follow_celery(conf_of(of_celery, of_the_ledger))  # as in processes that it starts
    os.environ["CELERY_BROKER_URL"] = told
    follow_celery(conf_of(told, of_the_ledger))  # as after a SIGHUP
    assert os.environ["CELERY_BROKER_URL"] == of_celery
    assert ("master_name" in conf.broker_transport_options) == told.startswith("sentinel")


def test_a_worker_is_not_told_of_two_brokers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIGITQ_BROKER_URL", "redis://one")
    settings.cache_clear()
    conf = conf_of(OTHER, "redis://one")
    with pytest.raises(
        UsageError, match="-b, BROKER_URL or .* another broker than DIGITQ_BROKER_URL"
    ):
        follow_celery(conf)
    same = conf_of("redis://one/0", "redis://one")
    follow_celery(same)
    assert same.digitq_database_url == "redis://one"


def test_celery_and_flower_show_no_password() -> None:
    shown = app.conf.table(with_defaults=False, censored=True)
    assert shown["digitq_database_url"] == "*" * 8


def test_messages_are_json_alone() -> None:
    assert app.conf.accept_content == ["json"]
