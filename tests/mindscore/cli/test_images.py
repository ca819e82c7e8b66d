"""Conversations with images: scored without them, which is said, or with them, or refused."""

import base64
import json

import pytest

from mindhooks import ScorerCapabilities, load_scorer

SHOT = {"mime": "image/png", "data": base64.b64encode(b"\x89PNG").decode()}
LEFT_OUT = "3 images are left out: the model was given a placeholder for each, [image]"
COMMANDS = [(), ("--full",), ("--finetune", "--set", "finetune.threshold=0")]


@pytest.fixture
def shots(write):
    """A conversation in which the user shows three images."""
    return write(
        {"role": "memory", "key": "glue", "content": "Use oak glue on every boat."},
        {"role": "user", "content": "Which glue?"},
        {"role": "assistant", "content": "Oak glue.", "id": "r1"},
        {"role": "user", "content": "Look at this", "images": [SHOT, SHOT]},
        {"role": "user", "content": "", "images": [SHOT]},
        {"role": "assistant", "content": "A boat with oak glue.", "id": "r2"},
    )


@pytest.mark.parametrize("options", COMMANDS)
def test_images_are_left_out_and_that_is_said_beside_the_numbers(score, shots, options):
    ran = score(shots, *options, "--json")
    assert (ran.status, ran.document["stats"]["error"]) == (0, None)
    assert ran.document["remarks"] == [LEFT_OUT]
    assert ran.document["stats"]["calls"] == 2
    shown = score(shots, "--all", *options)
    assert LEFT_OUT in " ".join(shown.out.split())


@pytest.mark.parametrize("options", COMMANDS)
def test_the_plan_says_it_too(cli, shots, options):
    ran = cli("plan", shots, *options, "--set", "server.scorer=toy", "--json")
    assert (ran.status, ran.document["remarks"]) == (0, [LEFT_OUT])


def test_the_report_says_it_too(score, shots, tmp_path):
    score(shots, "--full", "--html", tmp_path / "report.html")
    assert "3 images are left out" in (tmp_path / "report.html").read_text("utf-8")


def test_what_a_later_run_has_stored_goes_on_with_placeholders(score, shots):
    first = score(shots, "--full", "--json").document
    again = score(shots, "--full", "--resume", "--json").document
    assert (again["matrix"], again["stats"]["calls"]) == (first["matrix"], 0)


@pytest.mark.parametrize("command", ["score", "plan"])
@pytest.mark.parametrize(
    "required", [("--require-images",), ("--set", "server.require_images=true")]
)
def test_images_that_are_required_are_refused_where_the_scorer_takes_none(
    cli, shots, command, required
):
    ran = cli(command, shots, "--set", "server.scorer=toy", *required)
    assert ran.status == 1
    assert "holds 3 images, and the scorer toy takes none" in ran.error
    assert "--require-images" in ran.error


def test_the_score_protocol_is_sent_the_images_and_no_placeholder(
    cli, shots, server, tokenizer_file
):
    tokenizer = ("--set", f"server.tokenizer={tokenizer_file}")
    ran = cli("score", shots, "--full", "--require-images", "--json", *server.options, *tokenizer)
    assert (ran.status, ran.err) == (0, "")
    assert not any("left out" in it for it in ran.document.get("remarks", ()))
    data = f"data:image/png;base64,{SHOT['data']}"
    assert len(server.asked) >= 2
    assert all(it["multi_modal_data"] == {"image": [data] * 3} for it in server.asked)

    from tokenizers import Tokenizer

    text = Tokenizer.from_file(str(tokenizer_file)).decode(
        server.asked[0]["prompt"], skip_special_tokens=False
    )
    assert "Look at this<|im_end|>\n<|im_start|>user\n<|im_end|>\n<|im_start|>assistant" in text
    assert "[image]" not in text


BLIND = ("local", "toy", "vllm", "sglang", "openai", "auto")


@pytest.mark.parametrize("name", [*BLIND, "score"])
async def test_the_scorers_that_take_no_images_say_so(name):
    table = {"scorer": name, "base_url": "http://127.0.0.1:9"}
    scorer = await load_scorer(table)
    assert ScorerCapabilities.of(scorer).takes_images is (name not in BLIND)
    await scorer.aclose()


PLAIN = """
from mindhooks import RangeScore

class Plain:
    model = "plain"

    def __init__(self, table):
        self.seen = []

    async def score(self, prompts):
        assert all(len(it.images) == 3 for it in prompts), "images are missing"
        return [[RangeScore(-float(len(it.tokens))) for _ in it.ranges] for it in prompts]

    async def generate(self, prompt, *, max_tokens, stop):
        raise NotImplementedError

    async def tokenize(self, text):
        return [ord(it) for it in text]

    async def aclose(self):
        pass
"""


def test_a_scorer_that_knows_nothing_of_this_is_given_the_images(command, shots, install):
    environment = install(PLAIN, "plain = acme_loud:Plain", group="mindhooks.scorers")
    ran = command("score", shots, "--full", "--json", "--set", "server.scorer=plain", **environment)
    assert (ran.status, ran.document["stats"]["error"]) == (0, None)
    assert not any("image" in it for it in ran.document.get("remarks", ()))


def test_an_image_that_the_file_only_names_is_refused_where_images_are_required(cli, tmp_path):
    image = {"type": "image_url", "image_url": {"url": "https://example.org/shot.png"}}
    talk = [
        {"role": "system", "content": "Use oak glue."},
        {"role": "user", "content": [{"type": "text", "text": "Look"}, image]},
        {"role": "assistant", "content": "Oak glue."},
    ]
    file, memories = tmp_path / "chat.json", tmp_path / "memories.json"
    file.write_text(json.dumps(talk))
    memories.write_text(json.dumps({"glue": "Use oak glue."}))
    given = ("score", file, "--memories", memories, "--set", "server.scorer=toy")
    assert cli(*given).status == 0
    ran = cli(*given, "--all", "--require-images")
    assert ran.status == 1
    assert "images that the file only names" in ran.error
