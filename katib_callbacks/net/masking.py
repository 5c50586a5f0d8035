"""Names of sinks, which look like URLs: what they choose, how they are shown, what of them no message may show."""

import re

MASK = "***"

MIN_SECRET_CHARACTERS = 4
"""A shorter secret is looked for nowhere but in the whole name: its letters are part of any message."""

# What stands before the last @ may be a password, with characters in it that should have been percent-encoded. A path
# (``file:///a@b``) has a third slash.
_USER = r"^([^:]*:(?://)?)(?!/)(.*)@"
_QUERY = r"[?#].*"


def scheme_of(name: str) -> str:
    """Return what chooses the sink: what stands before the first colon, or all of it."""
    return name.partition(":")[0]


def label_of(name: str) -> str:
    """Return the name as it may be shown: user and password, query and fragment are masked.

    What has an @ and no colon is the rest of a name that a comma in its password has cut in two.
    """
    if ":" not in name:
        name = re.sub(r"^.*@", f"{MASK}@", name, flags=re.DOTALL)
    shown = re.sub(_USER, rf"\g<1>{MASK}@", name, flags=re.DOTALL)
    return re.sub(_QUERY, f"?{MASK}", shown, flags=re.DOTALL)


def scrub(text: str, name: str) -> str:
    """Return a message of somebody else's without what the name keeps secret."""
    text = text.replace(name, label_of(name))
    for secret in _secrets(name):
        text = text.replace(secret, MASK)
    return text


# Compiled, and kept by ``re``, on first use: a report that arrives needs none.
_CREDENTIALS = (
    (r"(://)[^/\s@]+@", rf"\g<1>{MASK}@"),  # of a URL
    (r"(?i)\b(Bearer|Basic)\s+[\w.~+/=-]{4,}", rf"\g<1> {MASK}"),
    (r"\beyJ[\w-]{5,}\.[\w-]{5,}\.[\w-]*", MASK),  # a JWT
    (r"(?i)\b(password|passwd|secret|token|api_?key)(\s*=\s*)[^\s&;,]+", rf"\g<1>\g<2>{MASK}"),
)


def without_credentials(text: str) -> str:
    """Return a message without what looks like a password or a token, whoever wrote it."""
    for pattern, replacement in _CREDENTIALS:
        text = re.sub(pattern, replacement, text)
    return text


def _secrets(name: str) -> list[str]:
    """Return what must not be shown, the longest first."""
    if label_of(name) == name:
        return []
    from urllib.parse import parse_qsl, unquote  # noqa: PLC0415  for names with secrets alone

    match = re.match(_USER, name, re.DOTALL)
    parts: list[str] = []
    if match:
        user, colon, password = match[2].partition(":")
        parts = [match[2], password if colon else user]
    parts += [value for _key, value in parse_qsl(name.partition("?")[2])]
    long_enough = {form for part in parts for form in (part, unquote(part)) if len(form) >= MIN_SECRET_CHARACTERS}
    return sorted(long_enough, key=len, reverse=True)
