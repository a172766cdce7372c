"""A broker's URL means the same to redis-py and kombu, or it is refused with one line."""

import pytest

from protocol.broker.address import read_address, without_password
from protocol.broker.connection import connect
from protocol.errors import UsageError


@pytest.mark.parametrize(
    ("url", "of_redis", "of_kombu"),
    [
        ("redis://h", "redis://h/0", None),
        ("redis://h:6379?db=3", "redis://h:6379/3", None),
        ("redis://h/3?virtual_host=3", "redis://h/3", None),
        ("redis://[::1]:1/3/", "redis://[::1]:1/3", None),
        ("redis://u:a;b%2F@h/1", "redis://u:a%3Bb%2F@h/1", None),
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
    ],
)
def test_no_password_is_told(url: str) -> None:
    with pytest.raises(UsageError) as refused:
        connect(url)
    assert "SECRET" not in str(refused.value)


def test_what_is_no_password_is_shown() -> None:
    assert without_password("rediss://u:p@h:1/0?ssl_password=p&db=3") == (
        "rediss://***@h:1/0?ssl_password=***&db=3"
    )
    assert without_password("unix:///run/redis.sock?db=0") == "unix:///run/redis.sock?db=0"
