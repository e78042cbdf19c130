"""What of an answer may reach a scorer that evaluates it as Python: plain data and plain mathematics, of bounded size.

Some scorers of reasoning-gym hand the answer to `eval`, or to sympy's `parse_expr`, which is `eval` as well. An answer
is therefore read here first, by Python's parser alone, which runs nothing:

    sum        numbers, + - * / and brackets               countdown, puzzle24
    formula    also ** and names of one letter, pi, and the functions of FUNCTIONS   polynomials, integrals
    literal    lists, text and numbers, or a board as it is printed                  matrices, queens, insertions
    number     a number with at most three digits of exponent                        coin flips

No other name passes, so no call but of a listed function, no attribute, and no text inside a formula. Sums and formulas
have at most LONGEST characters, and no number that can arise in one has more than MOST bits, so that 9**9**9 is none.
An integral left standing, Integral(f, x), is no formula.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Mapping
from typing import Literal

Kind = Literal["sum", "formula", "literal", "number"]

EVALUATED: Mapping[str, Kind] = {
    "binary_matrix": "literal",
    "coin_flip": "number",  # Fraction("1e999999999") is never done
    "countdown": "sum",
    "intermediate_integration": "formula",
    "n_queens": "literal",
    "polynomial_multiplication": "formula",
    "puzzle24": "sum",
    "simple_integration": "formula",
    "spiral_matrix": "literal",
    "string_insertion": "literal",
}
"""Datasets whose scorers evaluate the answer."""

GROWING = frozenset(("exp", "sinh", "cosh", "tanh", "erf"))
FUNCTIONS = GROWING | frozenset(
    "Abs acos acosh asin asinh atan atanh cos cot csc ln log sec sin sqrt tan".split()
)
LONGEST = 1000  # characters
MOST = 100_000  # bits of a number
TALLEST = 7  # bits of an exponent
DEEPEST = 15  # bits of what a growing function is taken of
NO_SYMBOLS = "NOQS"  # letters that are functions in sympy

_MATHEMATICS = re.compile(r"(?!.*[0-9.][A-Za-z])[-+*/()., 0-9A-Za-z]*")  # no 1e5, 0x1f or 2j
_BOARD = re.compile(r"[0-9_Q\s]*|[A-Z]*")
_NUMBER = re.compile(r"[^eE]*(?:[eE][-+]?[0-9]{1,3}\s*)?")


class Refused(ValueError):
    """Raised on what is not plain."""


def plain(answer: str, kind: Kind) -> bool:
    """Whether a scorer may evaluate the answer."""
    try:
        match kind:
            case "number":
                return _NUMBER.fullmatch(answer) is not None
            case "literal":
                return _BOARD.fullmatch(answer) is not None or bool([ast.literal_eval(answer)])
            case "sum" | "formula":
                text = answer.strip()
                if len(text) > LONGEST or not _MATHEMATICS.fullmatch(text):
                    return False
                return bits(ast.parse(text, mode="eval").body, kind == "formula") <= MOST
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return False


def bits(node: ast.expr, formula: bool) -> float:
    """How many bits a number that arises in an expression has at most, a letter counted as 1; else Refused.

    a + b   1 + max(a, b)     a * b, a / b   a + b     a ** b   a * 2^b, for b <= TALLEST
    f(a)    a; where f grows, 2^(a + 1), for a <= DEEPEST. E ** a is such a function
    """

    def of(each: ast.expr) -> float:
        return bits(each, formula)

    match node:
        case ast.Constant(value=int(value) | float(value)) if not isinstance(value, bool):
            return math.log2(value + 1)
        case ast.UnaryOp(op=ast.UAdd() | ast.USub(), operand=inner):
            return of(inner)
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub(), right=right):
            return 1 + max(of(left), of(right))
        case ast.BinOp(left=left, op=ast.Mult() | ast.Div(), right=right):
            return of(left) + of(right)
        case ast.BinOp(left=ast.Name(id="E"), op=ast.Pow(), right=power) if formula:
            return _grown(of(power))
        case ast.BinOp(left=left, op=ast.Pow(), right=power) if formula and of(power) <= TALLEST:
            return of(left) * 2 ** of(power)
        case ast.Name(id="E" | "pi") if formula:
            return 2.0
        case ast.Name(id=name) if formula and len(name) == 1 and name not in NO_SYMBOLS:
            return 1.0
        case ast.Call(func=ast.Name(id=name), args=[*arguments], keywords=[]) if (
            formula and name in FUNCTIONS and arguments
        ):
            most = max(of(each) for each in arguments)
            return _grown(most) if name in GROWING else most
    raise Refused(f"{type(node).__name__} is no plain mathematics")


def _grown(most: float) -> float:
    if most > DEEPEST:
        raise Refused("a number grows too large")
    return 2.0 ** (most + 1)
