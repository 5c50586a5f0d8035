r"""Go's regular expressions, which Katib's filters are (RE2), as Python's.

What Go refuses is refused, though Python could do it: look-around, references back. What Go alone has is rewritten:
``(?U)``, ``[[:alpha:]]``, ``\pL``, ``\Q...\E``, ``\z``. Classes are ASCII in Go, and ``$`` is the very end.
Source: the package regexp/syntax of Go 1.24 (parse.go, doc.go).
"""

import functools
import re
import sys
import unicodedata

_MAX_REPEAT = 1000

_Ranges = list[tuple[int, int]]

_PERL: dict[str, _Ranges] = {
    "d": [(0x30, 0x39)],
    "s": [(0x09, 0x0A), (0x0C, 0x0D), (0x20, 0x20)],
    "w": [(0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)],
}
_POSIX: dict[str, _Ranges] = {
    "alnum": [(0x30, 0x39), (0x41, 0x5A), (0x61, 0x7A)],
    "alpha": [(0x41, 0x5A), (0x61, 0x7A)],
    "ascii": [(0x00, 0x7F)],
    "blank": [(0x09, 0x09), (0x20, 0x20)],
    "cntrl": [(0x00, 0x1F), (0x7F, 0x7F)],
    "digit": [(0x30, 0x39)],
    "graph": [(0x21, 0x7E)],
    "lower": [(0x61, 0x7A)],
    "print": [(0x20, 0x7E)],
    "punct": [(0x21, 0x2F), (0x3A, 0x40), (0x5B, 0x60), (0x7B, 0x7E)],
    "space": [(0x09, 0x0D), (0x20, 0x20)],
    "upper": [(0x41, 0x5A)],
    "word": _PERL["w"],
    "xdigit": [(0x30, 0x39), (0x41, 0x46), (0x61, 0x66)],
}
_CATEGORIES = re.compile("C[cfos]?|L[lmotu]?|M[cen]?|N[dlo]?|P[cdefios]?|S[ckmo]?|Z[lps]?")
_CONTROLS = {"a": 0x07, "f": 0x0C, "n": 0x0A, "r": 0x0D, "t": 0x09, "v": 0x0B}
_ASSERTIONS = {"A": r"(?=\A)", "z": r"(?=\Z)", "b": r"(?a:\b)", "B": r"(?a:\B)"}
"""In parentheses, because Go repeats them, and Python refuses to."""

_REPEAT = re.compile(r"\{(\d+)(,(\d*))?\}")
_GROUP_NAME = re.compile(r"\(\?P?<(\w+)>", re.ASCII)
_FLAGS = re.compile(r"\(\?([imsU]*)(?:-([imsU]+))?([:)])")
_HEXADECIMAL = re.compile(r"x(?:\{([0-9a-fA-F]+)\}|([0-9a-fA-F]{2}))")
_OCTAL = re.compile(r"0[0-7]{0,2}|[1-7][0-7]{1,2}")
_PROPERTY = re.compile(r"[pP](?:\{(\^?)(\w+)\}|([A-Za-z]))")


class PatternError(ValueError):
    """A pattern that Go does not take, or that cannot be rewritten; the message says why."""


@functools.lru_cache(maxsize=64)
def compile_pattern(pattern: str) -> "re.Pattern[str]":
    r"""Return what matches as Go's pattern does, with the same groups; PatternError for an unknown ``\p{...}``, too."""
    rewritten = _Rewriter(pattern).rewrite()
    try:
        return re.compile(rewritten)
    except (re.error, OverflowError, RecursionError) as error:
        raise PatternError(f"cannot be rewritten for Python: {error}") from error


class _Rewriter:
    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._at = 0
        self._flags: frozenset[str] = frozenset()
        self._outer: list[frozenset[str]] = []  # the flags around each group that is open
        self._names: set[str] = set()
        self._can_repeat = False
        self._was_repeat = False

    def rewrite(self) -> str:
        pieces = []
        while self._at < len(self._pattern):
            pieces.append(self._next())
        if self._outer:
            raise PatternError("a parenthesis is not closed")
        return "".join(pieces)

    def _rest(self) -> str:
        return self._pattern[self._at :]

    def _next(self) -> str:
        character = self._pattern[self._at]
        if character in "*+?" or (character == "{" and _REPEAT.match(self._pattern, self._at)):
            return self._repeat()
        self._was_repeat = False
        if character == "(":
            return self._group()
        self._at += 1
        if character in "|)":
            self._can_repeat = character == ")"
            if character == ")":
                self._end_group()
            return character
        self._can_repeat = True
        return self._atom(character)

    def _atom(self, character: str) -> str:
        if character == ".":
            return r"(?s:.)" if "s" in self._flags else r"[^\n]"
        if character in "^$":
            return f"(?m:{character})" if "m" in self._flags else _ASSERTIONS["A" if character == "^" else "z"]
        if character == "[":
            return _class_text(self._class())
        return self._escape() if character == "\\" else self._in_case(re.escape(character))

    def _in_case(self, character: str) -> str:
        return f"(?i:{character})" if "i" in self._flags else character

    def _known(self, ranges: _Ranges, *, is_negated: bool) -> _Ranges:
        """Return the characters of a class or its complement; Go takes both cases in before it turns them round."""
        folded = _folded(ranges) if "i" in self._flags else ranges
        return _complement(folded) if is_negated else folded

    def _repeat(self) -> str:
        if self._was_repeat:
            raise PatternError("a repetition is repeated, which Go refuses (as it does possessive ones)")
        if not self._can_repeat:
            raise PatternError("a repetition has nothing before it")
        match = _REPEAT.match(self._pattern, self._at)
        operator = match[0] if match else self._pattern[self._at]
        if match is not None:
            least, most = int(match[1]), int(match[3]) if match[3] else None
            if max(least, most or 0) > _MAX_REPEAT or (most is not None and most < least):
                raise PatternError(f"{operator} is not a repetition that Go takes: at most {_MAX_REPEAT} times")
        self._at += len(operator)
        is_lazy = self._rest().startswith("?")
        self._at += is_lazy
        self._was_repeat = True
        return operator + ("?" if is_lazy != ("U" in self._flags) else "")

    def _group(self) -> str:
        name, flags = _GROUP_NAME.match(self._pattern, self._at), _FLAGS.match(self._pattern, self._at)
        self._can_repeat = False
        if name is not None:
            if name[1] in self._names:
                raise PatternError(f"the name {name[1]!r} stands there twice")
            self._names.add(name[1])
            self._outer.append(self._flags)
            self._at = name.end()
            return "("  # Python's names are not Go's, and only the number counts
        if flags is not None and (flags[1] or flags[2] or flags[3] == ":"):
            self._at = flags.end()
            if flags[3] == ":":
                self._outer.append(self._flags)
            self._flags = (self._flags | set(flags[1])) - set(flags[2] or "")
            return "(?:" if flags[3] == ":" else ""
        if self._rest().startswith("(?"):
            raise PatternError(f"{self._rest()[:4]!r}: Go has no such group (no look-around, no condition, no comment)")
        self._outer.append(self._flags)
        self._at += 1
        return "("

    def _end_group(self) -> None:
        if not self._outer:
            raise PatternError("a parenthesis is closed that is not open")
        self._flags = self._outer.pop()

    def _escape(self) -> str:
        rest = self._rest()
        if rest.startswith("Q"):
            literal, end, _ = rest[1:].partition("\\E")
            self._at += 1 + len(literal) + len(end)
            return "".join(self._in_case(re.escape(character)) for character in literal)
        if rest[:1] in _ASSERTIONS and rest:
            self._at += 1
            return _ASSERTIONS[rest[0]]
        ranges = self._escaped_class()
        return _class_text(ranges) if ranges is not None else self._in_case(re.escape(chr(self._escaped_character())))

    def _escaped_class(self) -> _Ranges | None:
        """Read ``d``, ``pL`` and the like after a backslash; None if another escape stands there."""
        rest = self._rest()
        if rest[:1].lower() in _PERL and rest:
            self._at += 1
            return self._known(_PERL[rest[0].lower()], is_negated=rest[0].isupper())
        match = _PROPERTY.match(rest)
        if match is None:
            return None
        self._at += match.end()
        name = match[2] or match[3]
        if name == "Any":
            ranges = [(0, sys.maxunicode)]
        elif _CATEGORIES.fullmatch(name):
            ranges = _category(name)
        else:
            raise PatternError(f"\\p{{{name}}}: only general categories such as L or Nd are known here, no scripts")
        return self._known(ranges, is_negated=(rest[0] == "P") != bool(match[1]))

    def _escaped_character(self) -> int:
        rest = self._rest()
        number: int | None = None
        if match := _HEXADECIMAL.match(rest):
            number = int(match[1] or match[2], 16)
        elif match := _OCTAL.match(rest):
            number = int(match[0], 8)
        if match is not None and number is not None and number <= sys.maxunicode:
            self._at += match.end()
            return number
        if rest[:1] in _CONTROLS and rest:
            self._at += 1
            return _CONTROLS[rest[0]]
        if not rest or rest[0].isalnum() or not rest[0].isascii() or rest[0] == "_":
            raise PatternError(f"'\\{rest[:1]}': Go has no such escape (no references back)")
        self._at += 1
        return ord(rest[0])

    def _class(self) -> _Ranges:
        is_negated = self._rest().startswith("^")
        self._at += is_negated
        ranges: _Ranges = []
        is_first = True
        while is_first or not self._rest().startswith("]"):
            if not self._rest():
                raise PatternError("a character class is not closed")
            is_first = False
            ranges += self._class_item()
        self._at += 1
        return _complement(ranges) if is_negated else ranges

    def _class_item(self) -> _Ranges:
        rest = self._rest()
        if rest.startswith("[:") and ":]" in rest[2:]:
            name = rest[2 : rest.index(":]", 2)]
            self._at += len(name) + 4
            if name.removeprefix("^") not in _POSIX:
                raise PatternError(f"[:{name}:]: there is no such class")
            return self._known(_POSIX[name.removeprefix("^")], is_negated=name.startswith("^"))
        if rest.startswith("\\"):
            self._at += 1
            known = self._escaped_class()
            if known is not None:
                return known
            self._at -= 1
        low = high = self._class_character()
        if self._rest().startswith("-") and self._rest()[1:2] not in {"", "]"}:
            self._at += 1
            high = self._class_character()
            if high < low:
                raise PatternError(f"{chr(low)}-{chr(high)}: a range that goes backwards")
        return self._known([(low, high)], is_negated=False)

    def _class_character(self) -> int:
        character = self._rest()[:1]
        self._at += 1
        if not character:
            raise PatternError("a character class is not closed")
        return self._escaped_character() if character == "\\" else ord(character)


def _complement(ranges: _Ranges) -> _Ranges:
    complement, first = [], 0
    for low, high in sorted(ranges):
        if low > first:
            complement.append((first, low - 1))
        first = max(first, high + 1)
    if first <= sys.maxunicode:
        complement.append((first, sys.maxunicode))
    return complement


def _folded(ranges: _Ranges) -> _Ranges:
    """Add the characters that are the same in the other case."""
    orbits = _orbits()
    found = [number for low, high in ranges for number in range(low, high + 1) if number in orbits]
    return [*ranges, *((other, other) for number in found for other in orbits[number])]


@functools.cache
def _orbits() -> dict[int, tuple[int, ...]]:
    """Return which characters are the same but for their case, such as k, K and the sign for kelvin."""
    groups: dict[str, list[int]] = {}
    for character in map(chr, range(sys.maxunicode + 1)):
        key = folded if len(folded := character.casefold()) == 1 else character.lower()
        groups.setdefault(key, []).append(ord(character))
    return {number: tuple(group) for group in groups.values() if len(group) > 1 for number in group}


def _class_text(ranges: _Ranges) -> str:
    if not ranges:
        return "(?!)"  # matches nothing
    return "[" + "".join(f"\\U{low:08x}" + (f"-\\U{high:08x}" if high > low else "") for low, high in ranges) + "]"


@functools.cache
def _category(name: str) -> _Ranges:
    """Return where the characters of a general category lie; a quarter of a second, the first time."""
    ranges: _Ranges = []
    for number in range(sys.maxunicode + 1):
        if unicodedata.category(chr(number)).startswith(name):
            if ranges and ranges[-1][1] == number - 1:
                ranges[-1] = (ranges[-1][0], number)
            else:
                ranges.append((number, number))
    return ranges
