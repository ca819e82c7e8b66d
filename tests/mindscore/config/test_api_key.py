"""Where the API key must not go: over plain http, out of a file that others read, into texts."""

import json
import logging
import os
import shlex
import traceback
from contextlib import aclosing

import pytest

from mindhooks import ScorerError, WirePrompt
from mindscore._util.errors import ConfigError
from mindscore.config.file import read_api_key
from mindscore.config.settings import ServerSettings
from mindscore.http.client import Redactor, WireClient, is_loopback
from mindscore.scorers.remote.openai import OpenAIScorer
from mindscore.scorers.remote.vllm import VLLMScorer

SECRET = "sk-very/secret\\of'the\"test"
PROMPT = WirePrompt((5, 6, 7), (), ((1, 3),), ("a",))

OWN = [
    *("127.0.0.1", "127.1.2.3", "127.255.255.255", "localhost", "LocalHost", "localhost."),
    *("[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:0:0:1]"),
]
OTHERS = [
    *("h", "example.org", "10.0.0.1", "192.168.1.5", "0.0.0.0", "128.0.0.1", "localhost.example"),
    *(
        "127.0.0.1.example",
        "[::]",
        "[::2]",
        "[::ffff:10.0.0.1]",
        "[fe80::1]",
        "127.1",
        "2130706433",
    ),
]


# Over plain http.


@pytest.mark.parametrize("host", OWN)
def test_a_key_may_go_to_this_machine_in_the_clear(host, monkeypatch):
    monkeypatch.setenv("MINDSCORE_API_KEY", SECRET)

    assert is_loopback(host.strip("[]"))
    WireClient(ServerSettings(base_url=f"http://{host}:8000/v1"))


@pytest.mark.parametrize("host", OTHERS)
def test_a_key_may_not_go_elsewhere_in_the_clear(host, monkeypatch):
    monkeypatch.setenv("MINDSCORE_API_KEY", SECRET)

    assert not is_loopback(host.strip("[]"))
    with pytest.raises(ConfigError, match=r"^server\.base_url: http://") as caught:
        WireClient(ServerSettings(base_url=f"http://{host}:8000"))

    assert "https" in str(caught.value)
    assert "server.allow_insecure = true" in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("base_url", "settings", "key"),
    [
        ("https://example.org", {}, SECRET),
        ("HTTPS://example.org", {}, SECRET),
        ("http://example.org", {"allow_insecure": True}, SECRET),
        ("http://example.org", {}, ""),
    ],
)
def test_a_key_may_go_over_https_or_where_that_is_wanted(base_url, settings, key, monkeypatch):
    monkeypatch.setenv("MINDSCORE_API_KEY", key)

    WireClient(ServerSettings(base_url=base_url, **settings))


def test_a_password_in_the_address_is_refused_without_being_told():
    with pytest.raises(ConfigError) as caught:
        WireClient(ServerSettings(base_url="ftp://user:hunter2@example.org"))

    assert "hunter2" not in str(caught.value)


# In a file.


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o644, 0o666, 0o777])
def test_a_key_file_that_others_can_read_or_change_is_refused_with_what_to_do(mode, tmp_path):
    file = tmp_path / "the key"
    file.write_text(SECRET)
    file.chmod(mode)

    with pytest.raises(ConfigError, match=r"^server\.api_key_file: ") as caught:
        read_api_key(ServerSettings(api_key_file=str(file)))

    assert f"chmod 600 {shlex.quote(str(file))}" in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_a_key_file_that_its_owner_alone_can_read_is_taken(mode, tmp_path):
    file = tmp_path / "key"
    file.write_text(SECRET)
    file.chmod(mode)

    assert read_api_key(ServerSettings(api_key_file=str(file))) == SECRET


def test_a_link_is_as_private_as_what_it_leads_to(tmp_path):
    file, link = tmp_path / "key", tmp_path / "link"
    file.touch(mode=0o600)
    file.write_text(SECRET)
    link.symlink_to(file)

    assert read_api_key(ServerSettings(api_key_file=str(link))) == SECRET


@pytest.mark.parametrize("content", [b"\xff" + SECRET.encode(), SECRET.encode() + b"\n\xff"])
def test_a_key_file_that_cannot_be_read_is_in_no_part_of_the_error(content, tmp_path):
    file = tmp_path / "key"
    file.touch(mode=0o600)
    file.write_bytes(content)

    with pytest.raises(ConfigError) as caught:
        read_api_key(ServerSettings(api_key_file=str(file)))

    assert SECRET not in everything(caught.value)
    assert repr(SECRET.encode())[2:-1] not in everything(caught.value)


def test_a_path_that_is_none_is_an_error_that_names_the_key():
    with pytest.raises(ConfigError, match=r"^server\.api_key_file: .*cannot be read"):
        read_api_key(ServerSettings(api_key_file="/key\0"))


# In texts.


def everything(error):
    """Return the text that may be printed of an error and of those that led to it."""
    texts = ["".join(traceback.format_exception(error))]
    while error is not None:
        texts += [str(error), repr(error), repr(vars(error))]
        error = error.__cause__ or error.__context__
    return "\n".join(texts)


@pytest.mark.parametrize("around", ["{}", "a {} b", "{0}{0}", "[{}]"])
def test_a_key_is_recognised_however_it_is_written(around):
    hidden = Redactor(SECRET)
    forms = [
        SECRET,
        json.dumps(SECRET)[1:-1],
        json.dumps(SECRET)[1:-1].replace("/", "\\/"),
        repr(SECRET)[1:-1],
        "sk-very%2Fsecret%5Cof%27the%22test",
        "sk-very/secret\\of&#x27;the&quot;test",
    ]
    for form in forms:
        assert "secret" not in hidden(around.format(form), is_cut=False)


def test_of_a_text_that_was_cut_off_no_part_of_the_key_is_left():
    hidden = Redactor(SECRET)
    for length in range(1, len(SECRET)):
        text = "a" * 100 + SECRET[:length]
        assert hidden(text, is_cut=True).strip("a") == ""


def test_without_a_key_nothing_is_taken_out():
    assert Redactor(None)("text", is_cut=True) == "text"


async def test_settings_and_clients_do_not_show_the_key(monkeypatch, score_server):
    monkeypatch.setenv("MINDSCORE_API_KEY", SECRET)
    settings = ServerSettings(base_url=score_server.url)
    async with aclosing(WireClient(settings)) as client:
        score_server.script({"tokens": []})
        await client.post("/tokenize", {}, dict)
        shown = f"{settings!r} {client!r} {client!s} {vars(client)['_session']!r}"
    async with aclosing(VLLMScorer({"base_url": score_server.url})) as scorer:
        shown += f"{scorer!r} {vars(scorer)!r}"
    assert "secret" not in shown


@pytest.mark.parametrize("tokens", [[f"token_id:{SECRET}"] * 3, ["token_id:" + "9" * 5000] * 3])
async def test_ids_that_are_none_are_an_error_that_does_not_repeat_them(
    tokens, score_server, monkeypatch, caplog
):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("MINDSCORE_API_KEY", SECRET)
    logprobs = {"token_logprobs": [None, -1.0, -1.0], "tokens": tokens}
    score_server.always({"choices": [{"index": 0, "logprobs": logprobs}]})
    async with aclosing(OpenAIScorer({"base_url": score_server.url})) as scorer:
        with pytest.raises(ScorerError, match="is of token") as caught:
            await scorer.score([PROMPT])
    assert len(str(caught.value)) < 600
    assert SECRET not in everything(caught.value) + caplog.text
