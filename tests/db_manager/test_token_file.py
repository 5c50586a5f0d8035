"""A token file: what is one, what is none, and that the last good one stays in force."""

import hashlib
import json
import os
import secrets

import pytest
from trials import hashed, new_token

from katib_callbacks import ConfigurationError
from katib_callbacks.db_manager.authentication import token_file
from katib_callbacks.db_manager.authentication.grant import RefusedError
from katib_callbacks.db_manager.authentication.token_file import TokenFile

TOKEN = new_token()
ENTRY = hashed("a", TOKEN, "trial-*", "x?", namespace="team-a")


class Clock:
    now_s = 0.0

    def __call__(self):
        return self.now_s


def test_a_token_grants_what_its_entry_says(trials):
    tokens = TokenFile(trials.write_tokens(ENTRY, {"name": "b", "token": "x" * 32, "trials": ["*"]}))
    grant = tokens.authenticate(TOKEN)
    assert (grant.caller, grant.namespace) == ("a", "team-a")
    names = {"trial-1": True, "trial-": True, "xy": True, "x": False, "Trial-1": False, "a trial-1": False}
    assert {name: grant.covers(name) for name in names} == names
    assert (tokens.authenticate("x" * 32).caller, tokens.authenticate("x" * 32).namespace) == ("b", None)


@pytest.mark.parametrize("token", ["", "x", TOKEN[:-1], f"{TOKEN}x", hashlib.sha256(TOKEN.encode()).hexdigest(), "*"])
def test_any_other_token_is_refused(trials, token):
    with pytest.raises(RefusedError, match="the token is not in the token file"):
        TokenFile(trials.write_tokens(ENTRY)).authenticate(token)


def test_no_entries_let_in_nobody(trials):
    with pytest.raises(RefusedError):
        TokenFile(trials.write_tokens()).authenticate(TOKEN)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is not JSON"),
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", 'is not {"tokens"'),
        ('{"tokens": {}}', 'is not {"tokens"'),
        ('{"tokens": [], "more": 1}', 'is not {"tokens"'),
        ([1], "tokens[0] is not an object"),
        ([ENTRY | {"trial": "x"}], "tokens[0] has other keys than"),
        ([ENTRY | {"name": ""}], "tokens[0].name"),
        ([ENTRY | {"name": "a\nb"}], "tokens[0].name"),
        ([ENTRY | {"trials": []}], "tokens[0].trials"),
        ([ENTRY | {"trials": "*"}], "tokens[0].trials"),
        ([ENTRY | {"trials": [""]}], "tokens[0].trials"),
        ([ENTRY | {"namespace": "Team"}], "tokens[0].namespace"),
        ([ENTRY | {"namespace": "a.b"}], "tokens[0].namespace"),
        ([ENTRY | {"token": TOKEN}], "either sha256 or token"),
        ([{"name": "a", "trials": ["*"]}], "either sha256 or token"),
        ([{"name": "a", "trials": ["*"], "token": "x" * 31}], "tokens[0].token must have 32 printable"),
        ([{"name": "a", "trials": ["*"], "token": "x x" * 32}], "tokens[0].token must have 32 printable"),
        ([{"name": "a", "trials": ["*"], "sha256": "0" * 63}], "tokens[0].sha256"),
        ([ENTRY, ENTRY | {"name": "b"}], "tokens[1]: the token or its name stands twice"),
        ([ENTRY, hashed("a", new_token(), "*")], "tokens[1]: the token or its name stands twice"),
    ],
)
def test_what_is_no_token_file_is_refused_and_not_quoted(trials, content, message):
    text = content if isinstance(content, str) else json.dumps({"tokens": content})
    with pytest.raises(ConfigurationError) as caught:
        TokenFile(trials.write("tokens.json", text.encode()))
    assert message in str(caught.value)
    assert TOKEN not in str(caught.value)


def test_a_file_that_is_not_there_is_named(trials):
    with pytest.raises(ConfigurationError, match=r"token file .*none.json: cannot be read: No such file"):
        TokenFile(trials.path("none.json"))


def test_a_new_token_counts_at_once_and_a_removed_one_no_longer(trials):
    tokens = TokenFile(trials.write_tokens(ENTRY))
    for number in range(50):
        new = secrets.token_urlsafe(32)
        trials.write_tokens(hashed("a", new, "*"))
        assert tokens.authenticate(new).caller == "a", number
        with pytest.raises(RefusedError):
            tokens.authenticate(TOKEN)


def test_a_file_that_is_written_in_place_counts_though_size_and_time_stay(trials):
    path = trials.write_tokens(ENTRY)
    tokens = TokenFile(path)
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    for _ in range(50):
        new = secrets.token_urlsafe(32)
        path.write_text(json.dumps({"tokens": [hashed("a", new, "trial-*", "x?", namespace="team-a")]}))
        os.utime(path, ns=times)
        assert tokens.authenticate(new).caller == "a"


def test_a_secret_volumes_swapped_link_is_followed(trials):
    for number, token in enumerate(("old" * 12, "new" * 12)):
        (trials.path(f"..{number}")).mkdir()
        trials.path(f"..{number}").joinpath("tokens.json").write_text(json.dumps({"tokens": [hashed("a", token, "*")]}))
    trials.path("..data").symlink_to("..0")
    trials.path("tokens.json").symlink_to("..data/tokens.json")
    tokens = TokenFile(trials.path("tokens.json"))
    assert tokens.authenticate("old" * 12)
    trials.path("..tmp").symlink_to("..1")
    trials.path("..tmp").replace(trials.path("..data"))
    assert tokens.authenticate("new" * 12)
    with pytest.raises(RefusedError):
        tokens.authenticate("old" * 12)


@pytest.mark.logs_error("token file .*tokens.json: is not JSON, for 11 s; what was read last stays in force")
@pytest.mark.parametrize("content", [b"", b'{"tokens": ['])
@pytest.mark.parametrize("is_settled", [False, True])
def test_a_broken_file_leaves_the_last_good_one_in_force_and_is_told_once(
    trials, caplog, content, is_settled, monkeypatch
):
    if is_settled:  # as a file is two seconds after it was written: it is not read again
        monkeypatch.setattr(token_file, "_UNSETTLED_NS", 0)
    clock = Clock()
    tokens = TokenFile(trials.write_tokens(ENTRY), clock)
    trials.write("tokens.json", content)
    for now_s in (0.0, 1.0, 11.0, 12.0, 600.0):
        clock.now_s = now_s
        assert tokens.authenticate(TOKEN).caller == "a"
    assert [r.levelname for r in caplog.records if r.levelname == "ERROR"] == ["ERROR"]
    trials.write_tokens(ENTRY)
    assert tokens.authenticate(TOKEN).caller == "a"
    assert "the files are good again" in caplog.text


@pytest.mark.logs_error("token file .*tokens.json: cannot be read: No such file or directory, for 11 s")
def test_a_removed_file_leaves_the_last_one_in_force(trials):
    clock = Clock()
    tokens = TokenFile(trials.write_tokens(ENTRY), clock)
    trials.path("tokens.json").unlink()
    for now_s in (0.0, 11.0):
        clock.now_s = now_s
        assert tokens.authenticate(TOKEN).caller == "a"


def test_a_file_that_everybody_can_read_is_warned_of(trials, caplog):
    path = trials.write_tokens(ENTRY)
    TokenFile(path)
    assert "can be read by everybody" not in caplog.text
    path.chmod(0o644)
    TokenFile(path)
    assert "can be read by everybody on this machine" in caplog.text
