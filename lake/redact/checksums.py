"""Check digits: what tells a number that was issued from one that only looks like it."""

from __future__ import annotations


def luhn(digits: str) -> bool:
    """ISO/IEC 7812-1, annex B: every second digit from the right is doubled; the sum of digits ends in 0."""
    doubled = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)
    total = sum(map(int, digits[-1::-2])) + sum(doubled[int(digit)] for digit in digits[-2::-2])
    return total % 10 == 0


def mod_97(code: str) -> bool:
    """ISO 7064 MOD 97-10 as an IBAN uses it (ISO 13616-1): the first four characters go last, A is 10 … Z is 35."""
    return int("".join(str(int(character, 36)) for character in code[4:] + code[:4])) % 97 == 1


def mod_11_10(digits: str) -> bool:
    """ISO 7064 MOD 11,10, of the German tax identification number: the last digit checks those before it."""
    product = 10
    for digit in digits[:-1]:
        product = ((int(digit) + product) % 10 or 10) * 2 % 11
    return (11 - product) % 10 == int(digits[-1])


def weighted(digits: str, weights: tuple[int, ...], modulus: int) -> int:
    """The weighted sum of the first `len(weights)` digits, modulo `modulus`."""
    return sum(int(digit) * weight for digit, weight in zip(digits, weights, strict=False)) % modulus
