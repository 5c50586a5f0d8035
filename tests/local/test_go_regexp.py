"""Go's regular expressions: what both have, what Go alone has, and what it refuses."""

import pytest

from katib_callbacks.local.api.go_regexp import PatternError, compile_pattern


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        (r"([\w|-]+)\s*=\s*([+-]?\d*(\.\d+)?([Ee][+-]?\d+)?)", "loss = 1e-3", ["loss = 1e-3"]),
        (r"\w+", "größe", ["gr", "e"]),
        (r"\d+", "1٣", ["1"]),
        (r"\bx\b", "x éx", ["x", "x"]),
        (r"[\w]+", "é_a", ["_a"]),
        (r"\s", "a\vb\fc", ["\f"]),
        (r"x$", "x\n", []),
        (r"x\z", "ax", ["x"]),
        (r"(?m)^b$", "a\nb\n", ["b"]),
        (r"a.c", "a\nc", []),
        (r"(?s)a.c", "a\nc", ["a\nc"]),
        (r"(?s:a.)b.", "a\nb\n", []),
        (r"(?U)a+", "aaa", ["a", "a", "a"]),
        (r"(?U)a+?", "aaa", ["aaa"]),
        (r"a(?i)b|c", "aB C c", ["aB", "C", "c"]),
        (r"a((?i)b)c", "aBc aBC", ["aBc"]),
        (r"(?i)LOSS=[a-f]+", "loss=ABC", ["loss=ABC"]),
        (r"x(?-i:y)z", "xyz", ["xyz"]),
        (r"\pL+", "aé1", ["aé"]),
        (r"\p{Nd}+\PN", "12a", ["12a"]),
        (r"\p{^L}", "a1", ["1"]),
        (r"[\pN[:punct:]]+", "a1!", ["1!"]),
        (r"[[:alpha:]]+", "aé1b", ["a", "b"]),
        (r"[[:^alpha:]]+", "a12b", ["12"]),
        (r"[^\W_]+", "a_b", ["a", "b"]),
        (r"[]a]+", "]a", ["]a"]),
        (r"[a\]&&-]+", "a]&-b", ["a]&-"]),
        (r"\Qa.b*\E+", "a.b**", ["a.b**"]),
        (r"\Qa.", "a. ab", ["a."]),
        (r"\x41\x{1F600}\101", "A😀A", ["A😀A"]),
        (r"(?P<n>a)(?<m>b)", "ab", ["ab"]),
        (r"{,5}x{2}", "{,5}xx", ["{,5}xx"]),
        (r"a{2,}?", "aaaa", ["aa", "aa"]),
        (r"(?i)\W+", "loss=0", ["="]),
        (r"(?i)[^k]", "kK\u212ax", ["x"]),
        (r"^*a$?", "a", ["a"]),
        (r"\p{Greek}+", "aλ", ["λ"]),
        (r"\\C", r"a\C", [r"\C"]),
    ],
)
def test_a_pattern_finds_what_go_finds(pattern, text, found):
    assert [match[0] for match in compile_pattern(pattern).finditer(text)] == found


@pytest.mark.parametrize(
    "pattern",
    [
        *(r"(?=a)", r"(?<!a)b", r"(?>a)", r"(?#a)", r"(?P=n)", r"(?x)a", r"(a)\1", r"\Z", r"\N{DASH}", r"[\b]", "a\\"),
        *(r"a*+", r"a{2}{3}", r"a|*", r"a{1001}", r"(?P<n>a)(?P<n>b)", r"a\C", r"[[:letter:]]", r"[z-a]"),
        *(r"(a", r"a)", r"[a", r"\p{Klingon}"),
    ],
)
def test_what_go_refuses_is_refused(pattern):
    with pytest.raises(PatternError, match="Go takes no such pattern"):
        compile_pattern(pattern)
