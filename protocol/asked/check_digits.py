"""Check digits: with one of them wrong, or two beside each other exchanged, a number fails."""

from collections.abc import Callable

from digitq.protocol.asked.values import NUMERALS, only_digits


def has_luhn(number: str) -> bool:
    """Whether the digits satisfy ISO/IEC 7812: from the right, each second one is doubled."""
    digits = [*map(int, reversed(number))]
    return (sum(digits[::2]) + sum(sum(divmod(2 * digit, 10)) for digit in digits[1::2])) % 10 == 0


def has_mod11(number: str) -> bool:
    """Whether the digits satisfy ISO 2108 for ten of them: from the right, they count 1, 2, 3, …"""
    return sum(at * int(digit) for at, digit in enumerate(reversed(number), 1)) % 11 == 0


def has_mod97(number: str) -> bool:
    """Whether the digits satisfy ISO/IEC 7064, MOD 97-10."""
    return int(number) % 97 == 1


def check_digits(has_check: Callable[[str], bool]) -> Callable[[str], bool]:
    """The same test for what is written, which may have signs between its digits."""

    def test(written: str) -> bool:
        number = only_digits(written)
        return bool(number) and {*number} <= {*NUMERALS} and has_check(number)

    return test


# By the function that a rule calls: whether its check digit is right, and its name
CHECK_DIGITS = {
    "luhn": (check_digits(has_luhn), "Luhn"),
    "mod11": (check_digits(has_mod11), "mod 11"),
    "mod97": (check_digits(has_mod97), "mod 97"),
}
