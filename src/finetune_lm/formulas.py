"""What is expected of the conditions of an item, as a formula: read, checked, worked out.

The notation is that of SyntaxGym (Gauthier et al. 2020): ``(6;%plural%)`` is what region 6 costs in
the condition ``plural``, ``*`` stands for all regions. Where no region is meant, the name of the
condition is enough: ``plural - singular``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from finetune_lm.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Values = npt.NDArray[np.float64]

TIE = 1e-6
"""In bits: costs that differ by no more are the same, neither less nor greater."""

EQUAL, EQUAL_RELATIVE = 1e-3, 1e-5
"""Costs are equal (``=``) if they differ by no more than one of these, in bits or of the larger."""

ALL_REGIONS = "*"

_DEEPEST = 50
"""Brackets in brackets."""

_OF_NUMBERS, _COMPARISONS, _OF_TRUTHS = ("+", "-"), ("<", ">", "="), ("&", "|")
_CLOSING = {"(": ")", "[": "]"}
_TOKEN = re.compile(
    r"""\s*(?:
        (?P<number>\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?)(?![\w%])
      | \(\s*(?P<region>[^;()\[\]%]+?)\s*;\s*%(?P<condition>[^%]+)%\s*\)
      | %(?P<quoted>[^%]+)%
      | (?P<name>[^\W\d][\w.]*(?:-\w[\w.]*)*)
      | (?P<sign>[-+<>=&|()\[\]])
    )""",
    re.VERBOSE,
)


class Cost(NamedTuple):
    """What is referred to: the cost of a condition's sentence, or of one region of it.

    Attributes:
        condition: The condition.
        region: The region; None for the whole sentence, or for what a pair is scored over.
    """

    condition: str
    region: str | None = None


@dataclass(frozen=True)
class _Operation:
    sign: str
    left: _Node
    right: _Node

    @property
    def is_truth(self) -> bool:
        return self.sign not in _OF_NUMBERS


_Node = float | Cost | _Operation


@dataclass(frozen=True)
class Formula:
    """A formula that is read and makes sense.

    Attributes:
        text: As it was written.
        root: What it says.
        costs: All costs to which it refers, in order, each once.
    """

    text: str
    root: _Node
    costs: tuple[Cost, ...]

    def value(self, cost: Callable[[Cost], Values]) -> Values:
        """Work out a formula that is a number.

        Args:
            cost: What a condition or region costs in each of n items, in bits; NaN where that is
                missing: (n,).

        Returns:
            Its value in each item, NaN where anything in it is missing: (n,).
        """
        return _floats(_number(self.root, cost))

    def holds(self, cost: Callable[[Cost], Values]) -> Values:
        """Whether a prediction holds in each item: 1 or 0, NaN where anything is missing: (n,)."""
        return _floats(_truth(self.root, cost))

    def margin(self, cost: Callable[[Cost], Values]) -> Values:
        """By how many bits a prediction holds in each item, below 0 where it does not: (n,).

        Of a comparison it is the difference; of two with ``&`` the smaller, with ``|`` the larger
        margin. NaN where anything is missing, and of all that has an ``=`` in it.
        """
        return _floats(_margin(self.root, cost))


def parse_prediction(text: str, where: str) -> Formula:
    """Read a formula that holds or does not, such as ``(5;%a%) > (5;%b%)``.

    Args:
        text: The formula.
        where: Its place, for messages.

    Raises:
        UserError: If it is none.
    """
    formula = _parse(text, where)
    if not _is_truth(formula.root) or not formula.costs:
        raise UserError(
            f"{where}: a prediction must compare costs with <, > or = but got {text.strip()!r}."
        )
    return formula


def parse_contrast(text: str, where: str) -> Formula:
    """Read a formula that is a number, such as ``reversed - expected``.

    Args:
        text: The formula.
        where: Its place, for messages.

    Raises:
        UserError: If it is none, or no condition is in it.
    """
    formula = _parse(text, where)
    if _is_truth(formula.root):
        raise UserError(
            f"{where}: a contrast must be a number, as in 'reversed - expected', but "
            f"{text.strip()!r} compares."
        )
    if not formula.costs:
        raise UserError(f"{where}: a contrast must name conditions but got {text.strip()!r}.")
    return formula


def parse_contrasts(given: Mapping[str, str]) -> dict[str, Formula]:
    """Read contrasts under their names.

    Raises:
        UserError: With every one that is none.
    """
    found: dict[str, Formula] = {}
    problems: list[str] = []
    for name, text in given.items():
        try:
            found[name] = parse_contrast(text, f"contrasts.{name}")
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(*problems)
    return found


def _is_truth(node: _Node) -> bool:
    return isinstance(node, _Operation) and node.is_truth


def _parse(text: str, where: str) -> Formula:
    parser = _Parser(text, where)
    root = parser.whole()
    return Formula(text.strip(), root, tuple(dict.fromkeys(parser.costs)))


class _Parser:
    """Reads by precedence, loosest first: ``|``, ``&``, comparisons, ``+`` and ``-``.

    Signs of one precedence group from the left. SyntaxGym's own reader takes only the first two
    operands of ``a + b + c`` and of ``a & b & c``; here all count.
    """

    def __init__(self, text: str, where: str) -> None:
        self.costs: list[Cost] = []
        self._text, self._where = text, where
        self._tokens = list(self._split())
        self._place = 0
        self._depth = 0

    def whole(self) -> _Node:
        if not self._tokens:
            raise UserError(f"{self._where}: a formula must not be empty.")
        node = self._binary(0)
        if self._place < len(self._tokens):
            raise self._error("the end or a sign")
        return node

    def _split(self) -> list[re.Match[str]]:
        found, place, end = [], 0, len(self._text.rstrip())
        while place < end:
            match = _TOKEN.match(self._text, place)
            if match is None:
                rest = self._text[place:].lstrip()
                raise UserError(
                    f"{self._where}: cannot be read at {rest[:20]!r} in {self._text.strip()!r}. A "
                    f"formula is made of (region;%condition%), names of conditions, numbers, "
                    f"+ - < > = & | and brackets."
                )
            found.append(match)
            place = match.end()
        return found

    def _error(self, wanted: str) -> UserError:
        at_end = self._place >= len(self._tokens)
        got = "it ends" if at_end else f"there is {self._tokens[self._place][0].strip()!r}"
        return UserError(
            f"{self._where}: {wanted} must follow but {got} in {self._text.strip()!r}."
        )

    def _sign(self, *wanted: str) -> str | None:
        """Take the next sign if it is one of these."""
        if self._place < len(self._tokens):
            sign = self._tokens[self._place]["sign"]
            if sign in wanted:
                self._place += 1
                return sign
        return None

    def _binary(self, level: int) -> _Node:
        """Operands of a precedence, and what is between them."""
        levels: list[tuple[str, ...]] = [("|",), ("&",), _COMPARISONS, _OF_NUMBERS]
        if level == len(levels):
            return self._operand()
        node = self._binary(level + 1)
        while sign := self._sign(*levels[level]):
            node = self._joined(sign, node, self._binary(level + 1))
        return node

    def _joined(self, sign: str, left: _Node, right: _Node) -> _Operation:
        wants_truth = sign in _OF_TRUTHS
        for side in (left, right):
            if _is_truth(side) != wants_truth:
                wanted = "comparisons" if wants_truth else "costs or numbers"
                raise UserError(
                    f"{self._where}: {sign!r} must stand between {wanted}, which it does not in "
                    f"{self._text.strip()!r}."
                )
        return _Operation(sign, left, right)

    def _operand(self) -> _Node:
        if self._sign("-"):
            return self._joined("-", 0.0, self._operand())
        if opening := self._sign("(", "["):
            self._depth += 1
            if self._depth > _DEEPEST:
                raise UserError(
                    f"{self._where}: a formula must not have more than {_DEEPEST} brackets in one "
                    f"another."
                )
            node = self._binary(0)
            if not self._sign(_CLOSING[opening]):
                raise self._error(repr(_CLOSING[opening]))
            self._depth -= 1
            return node
        token = self._tokens[self._place] if self._place < len(self._tokens) else None
        if token is None or token["sign"]:
            raise self._error("a cost, a number or a bracket")
        self._place += 1
        if token["number"]:
            return float(token["number"])
        region = token["region"]
        name = token["condition"] or token["quoted"] or token["name"]
        self.costs.append(Cost(name, region))
        return self.costs[-1]


def _floats(values: Any) -> Values:
    import numpy as np

    return np.asarray(values, dtype=np.float64)


def _number(node: _Node, cost: Callable[[Cost], Values]) -> Any:
    if isinstance(node, Cost):
        return cost(node)
    if isinstance(node, _Operation):
        left, right = _number(node.left, cost), _number(node.right, cost)
        return left + right if node.sign == "+" else left - right
    return node


def _truth(node: _Node, cost: Callable[[Cost], Values]) -> Any:
    import numpy as np

    def judge(sign: str, left: Any, right: Any) -> Any:
        difference = np.asarray(left - right, dtype=np.float64)
        if sign == "=":
            larger = np.maximum(np.abs(left), np.abs(right))
            found = np.abs(difference) <= np.maximum(EQUAL, EQUAL_RELATIVE * larger)
        else:
            found = difference > TIE if sign == ">" else difference < -TIE
        return np.where(np.isnan(difference), np.nan, found)

    return _judged(node, cost, judge)


def _margin(node: _Node, cost: Callable[[Cost], Values]) -> Any:
    import numpy as np

    def judge(sign: str, left: Any, right: Any) -> Any:
        difference = np.asarray(left - right, dtype=np.float64)
        if sign == "=":
            return np.full_like(difference, np.nan)
        return difference if sign == ">" else -difference

    return _judged(node, cost, judge)


def _judged(
    node: _Node, cost: Callable[[Cost], Values], judge: Callable[[str, Any, Any], Any]
) -> Any:
    """What comes of comparisons: of several the least if all must hold, else the largest."""
    import numpy as np

    assert isinstance(node, _Operation)
    if node.sign in _OF_TRUTHS:
        sides = [_judged(side, cost, judge) for side in (node.left, node.right)]
        return np.minimum(*sides) if node.sign == "&" else np.maximum(*sides)
    return judge(node.sign, _number(node.left, cost), _number(node.right, cost))
