"""A broker's URL means the same to redis-py and kombu, or it is refused with one line."""

import pytest

from digitq.protocol.broker.address import Sentinels, read_address, url_in_command, without_password
from digitq.protocol.broker.connection import connect
from digitq.protocol.errors import UsageError


@pytest.mark.parametrize(
    ("url", "of_redis", "of_kombu"),
    [
        ("redis://h", "redis://h/0", None),
        ("redis://h:6379?db=3", "redis://h:6379/3", None),
        ("redis://h/3?virtual_host=3", "redis://h/3", None),
        ("redis://[::1]:1/3/", "redis://[::1]:1/3", None),
        ("redis://u:a;b%2F@h/1", "redis://u:a%3Bb%2F@h/1", None),
        ("valkey://u:p@h/1", "redis://u:p@h/1", None),
        ("valkeys://h/1", "rediss://h/1?ssl_cert_reqs=required", None),
        ("rediss://h/1", "rediss://h/1?ssl_cert_reqs=required", None),
        (
            "rediss://h?ssl_ca_certs=/a+b;c&ssl_cert_reqs=none&db=2",
            "rediss://h/2?ssl_cert_reqs=none&ssl_ca_certs=%2Fa+b%3Bc",
            None,
        ),
        ("unix:///r.sock", "unix:///r.sock?db=0", "redis+socket:///r.sock?virtual_host=0"),
        (
            "redis+socket://u:p@/a%b;/é.sock?virtual_host=2",
            "unix://u:p@/a%25b%3B/%C3%A9.sock?db=2",
            "redis+socket://u:p@/a%25b%3B/%C3%A9.sock?virtual_host=2",
        ),
    ],
)
def test_a_url_as_each_spells_it(url: str, of_redis: str, of_kombu: str | None) -> None:
    address = read_address(url)
    assert address.redis_url == of_redis
    assert address.celery_url == (of_kombu or of_redis)
    assert read_address(address.redis_url) == read_address(address.celery_url) == address


def test_the_path_of_a_socket_is_quoted() -> None:
    address = read_address("redis+socket:///a@b/c%20d.sock?db=3")
    assert address.redis_url == "unix:///a%40b/c%20d.sock?db=3"


def test_the_sentinels_of_a_master() -> None:
    url = "sentinel://u:p%2F@h1,[::1]:5/3?sentinel_password=s&master_name=m"
    address = read_address(url)
    assert address.redis_url == (
        "sentinel://u:p%2F@h1:26379,[::1]:5/3?master_name=m&sentinel_password=s"
    )
    assert address.celery_url == "sentinel://u:p%2F@h1:26379/3;sentinel://u:p%2F@[::1]:5/3"
    assert address.sentinels == Sentinels(
        hosts=(("h1", 26379), ("::1", 5)),
        master_name="m",
        sentinel_login={"password": "s"},
        redis_login={"username": "u", "password": "p/", "db": 3},
    )
    assert read_address(address.redis_url) == address


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("foo", "it is not a Redis URL"),
        ("amqp://h", "it is not a Redis URL"),
        ("redis://[", "it is not a Redis URL"),
        ("redis://h:99999", "it is not a Redis URL"),
        ("redis://a..b", "it is not a Redis URL"),
        ("redis://h/one", "its database is not a number"),
        ("redis://h/1/2", "its database is not a number"),
        ("redis://h/1?db=2", "it names two databases"),
        ("redis://h/0#1", "a # in it must be written %23"),
        ("unix://run/redis.sock", "it has no path of a socket"),
        ("unix://?db=0", "it has no path of a socket"),
        ("redis://h?socket_timeout=5&health_check_interval=3", "health_check_interval, socket_t"),
        ("unix:///s.sock?client_name=x&db=3", "it can't have client_name after the ?"),
        ("redis://h?ssl_cert_reqs=none", "it can't have ssl_cert_reqs after the ?"),
        ("rediss://h?ssl_min_version=3", "it can't have ssl_min_version after the ?"),
        ("rediss://h?ssl_cert_reqs=CERT_NONE", "is not one of required, optional, none"),
        ("rediss://h?ssl_check_hostname=0", "is neither true nor false"),
        ("sentinel://h1,h2/0", "it must have master_name, as in sentinel://host1:26379,host2"),
        ("sentinel://h?master_name=", "it must have master_name"),
        ("sentinel://h?master_name=m&ssl_ca_certs=/x", "Sentinels with TLS are not supported"),
        ("sentinel://h1,,h2?master_name=m", "it is not a Redis URL"),
        ("sentinel://h1:x,h2?master_name=m", "it is not a Redis URL"),
        ("sentinel://[h1?master_name=m", "it is not a Redis URL"),
        ("sentinel://h/1?db=2&master_name=m", "it names two databases"),
    ],
)
def test_what_one_of_them_would_not_understand(url: str, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        connect(url)
    assert f"broker '{url}' (--broker or DIGITQ_BROKER_URL): " in str(refused.value)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://u:SECRET@h/x",
        "redis://u:12/SECRET@h/0?db=1",
        "redis://u:12?SECRET@h/0",
        "redis://u:12#SECRET@h/0",
        "redis://:SECRET/@h/0",
        "redis://:℀SECRET@h/0",
        "redis://h?password=SECRET",
        "redis://h?password=a@SECRET&db=x",
        "rediss://h?ssl_password=SECRET&x=y",
        ":SECRET@h:6379",
        "sentinel://:SECRET@h1,h2/0",
        "sentinel://:℀SECRET@h1?master_name=m",
        "sentinel://h?sentinel_password=SECRET",
        "redis://:SECRET@h1 redis://u:SECRET@h2 sentinel://h?sentinel_password=SECRET",
    ],
)
def test_no_password_is_told(url: str) -> None:
    with pytest.raises(UsageError) as refused:
        connect(url)
    assert "SECRET" not in str(refused.value)


def test_one_url_is_one_deployment() -> None:
    """A list of Redis is refused, as is any other space, and no password of it is told."""
    for url in ("redis://:p@h1 redis://h2", "redis://h1\nredis://:p@h2", "redis://:a p@h1:1"):
        with pytest.raises(UsageError, match="it has a space: name one URL") as refused:
            read_address(url)
        assert "a second Redis is a deployment of its own" in str(refused.value)
        assert "p@" not in str(refused.value)
    assert read_address(" redis://h1\n").redis_url == "redis://h1/0"


def test_what_is_no_password_is_shown() -> None:
    assert without_password("rediss://u:p@h:1/0?ssl_password=p&db=3") == (
        "rediss://***@h:1/0?ssl_password=***&db=3"
    )
    assert without_password("unix:///run/redis.sock?db=0") == "unix:///run/redis.sock?db=0"


def test_a_command_shows_no_masked_password() -> None:
    for url in ("redis://:p@h/0", "redis://***@h/0", "rediss://h?ssl_password=p"):
        assert url_in_command(url) == "URL"
    assert url_in_command("rediss://h/0?ssl_ca_certs=/x&db=0") == (
        "'rediss://h/0?ssl_ca_certs=/x&db=0'"
    )
