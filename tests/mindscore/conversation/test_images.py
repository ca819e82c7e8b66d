"""Images that a scorer does not take: what stands in their place, and what is said."""

import re
from dataclasses import replace

import pytest

from mindhooks import Image, Part, Role, ScorerError
from mindscore.conversation import Message, ToolCall
from mindscore.conversation.choice import images_for
from mindscore.conversation.conversation import Transcript
from mindscore.conversation.jinja import JinjaTemplate
from mindscore.conversation.own_template import OwnTemplate
from mindscore.conversation.template import ChatML
from mindscore.recognisers import Block, Entry
from mindscore.scorers.toy import ToyScorer

SHOT = Image("image/png", b"\x89PNG")
MEMORY = Message(Role.MEMORY, "She uses oak glue.", memory_key="glue", id="m")
ASKED = Message(Role.USER, "Look.", images=(SHOT, SHOT), id="u")
ANSWER = Message(Role.ASSISTANT, "Oak.", id="a")
SAID = "2 images are left out: the model was given a placeholder for each, "

PARTS = """\
{% for it in messages %}<{{ it.role }}>{% if it.content is string %}{{ it.content }}{% else %}\
{% for part in it.content %}{% if part.type == 'image' %}<img>{% else %}{{ part.text }}{% endif %}\
{% endfor %}{% endif %}<end>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"""
TEXTS = """\
{% for it in messages %}<{{ it.role }}>{{ it.content }}<end>{% endfor %}\
{% if add_generation_prompt %}<assistant>{% endif %}"""
IGNORES = PARTS.replace("<img>", "")
REFUSES = PARTS.replace("<img>", "{{ raise_exception('no images beside a system prompt') }}")
LATER = PARTS.replace("<img>{% else %}{{ part.text }}{% endif %}{% endfor %}", (
    "{% else %}{{ part.text }}{% endif %}{% endfor %}"
    "{% for part in it.content %}{% if part.type == 'image' %}<img>{% endif %}{% endfor %}"
))  # fmt: skip
LOOKS_BACK = PARTS.replace(
    "<{{ it.role }}>",
    "<{{ it.role }}>{% if it.role == 'assistant' and not loop.last %}Then: {% endif %}",
)


def own(source):
    """Return the template of ``source`` as a scorer renders it."""
    template = JinjaTemplate(source, {})

    async def render(messages, asks, tools=()):
        return template.render(messages, asks, tools)

    return OwnTemplate(render)


async def tokenize(text):
    """Return a token for each character."""
    return [ord(character) for character in text]


def transcript(*messages):
    """Return the transcript of ``messages`` as a scorer without images gets it."""
    return Transcript("file", (), (), messages).without_images()


async def prompts(messages, template, skip=()):
    """Return each prompt's text up to the response, and the response's."""
    context = await transcript(*messages).context(tokenize, template)
    found = []
    for prompt in await context.wire_prompts(range(len(messages)), lambda key: key in skip):
        assert prompt.images == ()
        text = "".join(map(chr, prompt.tokens))
        found += [(text[:start], text[start:end]) for start, end in prompt.ranges]
    return found


async def remarks(messages, template):
    given = transcript(*messages)
    await given.context(tokenize, template)
    return await template.remarks(given.messages)


async def test_chatml_prints_a_line_for_each_image_before_the_text():
    [(prompt, said)] = await prompts([ASKED, ANSWER], ChatML())
    asked = "<|im_start|>user\n[image]\n[image]\nLook.<|im_end|>\n<|im_start|>assistant\n"
    assert (prompt, said) == (asked, "Oak.<|im_end|>")
    assert await remarks([ASKED, ANSWER], ChatML()) == [SAID + "[image]"]


async def test_an_image_without_text_is_a_placeholder_alone():
    [(prompt, _)] = await prompts([replace(ASKED, text="", images=(SHOT,)), ANSWER], ChatML())
    assert prompt.startswith("<|im_start|>user\n[image]<|im_end|>\n")
    [said] = await remarks([replace(ASKED, images=(SHOT,)), ANSWER], ChatML())
    assert said == "1 image is left out: the model was given a placeholder, [image]"


@pytest.mark.parametrize(
    ("source", "asked", "marker"),
    [
        (PARTS, "<img><img>Look.", "<img>"),
        (LATER, "Look.<img><img>", "<img>"),
        (TEXTS, "[image]\n[image]\nLook.", "[image]"),
        (IGNORES, "[image]\n[image]\nLook.", "[image]"),
        (REFUSES, "[image]\n[image]\nLook.", "[image]"),
    ],
    ids=["takes parts", "prints images last", "takes text", "ignores images", "refuses images"],
)
async def test_a_template_prints_the_marker_that_it_has_for_images(source, asked, marker):
    system = Message(Role.SYSTEM, "You help.", id="s")
    [(prompt, said)] = await prompts([system, ASKED, ANSWER], own(source))
    assert prompt == f"<system>You help.<end><user>{asked}<end><assistant>"
    assert said == "Oak.<end>"
    assert await remarks([system, ASKED, ANSWER], own(source)) == [SAID + marker]


async def test_roles_for_which_a_template_has_no_marker_get_the_text():
    source = PARTS.replace("it.content is string", "it.role == 'tool'")
    call = Message(Role.ASSISTANT, "See.", id="c")
    result = Message(Role.TOOL, "A screen.", images=(SHOT,), id="t")
    *_, (prompt, _) = await prompts([ASKED, call, result, ANSWER], own(source))
    assert prompt.endswith("<user><img><img>Look.<end><assistant>See.<end>"
                           "<tool>[image]\nA screen.<end><assistant>")  # fmt: skip
    said = await remarks([ASKED, call, result, ANSWER], own(source))
    assert said == [
        "3 images are left out: the model was given a placeholder for each, <img> or [image]"
    ]


@pytest.mark.parametrize("template", [ChatML, lambda: own(PARTS), lambda: own(LOOKS_BACK)])
async def test_prompts_with_and_without_a_memory_differ_in_the_memory_alone(template):
    messages = [MEMORY, ASKED, ANSWER, replace(ASKED, id="v"), replace(ANSWER, id="b")]
    with_it = await prompts(messages, template())
    without = await prompts(messages, template(), skip={"glue"})
    assert len(with_it) == len(without) == 2
    for (prompt, said), (bare, same) in zip(with_it, without, strict=True):
        assert said == same
        assert prompt.endswith(bare)
        alone = prompt.removesuffix(bare)
        assert "She uses oak glue." in alone
        assert not {"img", "image", "Look"} & set(re.findall(r"\w+", alone))


async def test_an_image_stays_where_the_memories_beside_it_are_all_left_out():
    text = "- oak"
    block = Block(0, len(text), (Entry("glue", text),), lambda skipped: "" if skipped else text)
    noted = Message(
        Role.USER, text, blocks=(block,), parts=(Part(text, "glue"),), images=(SHOT,), id="n"
    )
    for template in (ChatML(), own(PARTS), own(LOOKS_BACK)):
        [(prompt, _)] = await prompts([ASKED, noted, ANSWER], template, skip={"glue"})
        assert prompt.count("[image]") + prompt.count("<img>") == 3


async def test_an_image_of_a_memory_goes_with_it():
    pictured = replace(MEMORY, images=(SHOT,))
    messages = [ASKED, pictured, replace(ASKED, images=(), id="v"), ANSWER]
    for skip, count in (((), 3), ({"glue"}, 2)):
        [(prompt, _)] = await prompts(messages, ChatML(), skip)
        assert prompt.count("[image]") == count


@pytest.mark.parametrize("template", [ChatML, lambda: own(PARTS), lambda: own(LOOKS_BACK)])
async def test_a_response_has_no_placeholder_for_what_the_model_did_not_write(template):
    drawn, drawing = replace(ANSWER, images=(SHOT,)), Message(
        Role.ASSISTANT, "", images=(SHOT,), id="d"
    )  # fmt: skip
    again = replace(ASKED, images=(), id="v")
    found = await prompts([again, drawn, replace(again, id="w"), drawing], template())
    # The second is an image alone: there is nothing of it to score.
    assert [said.partition("<")[0] for _, said in found] == ["Oak."]
    assert "[image]" not in found[0][0]
    [said] = await remarks([again, drawn], template())
    assert said == "1 image is left out"


async def test_a_response_that_calls_a_tool_beside_an_image_is_scored():
    call = Message(Role.ASSISTANT, "", (ToolCall("stock", "{}"),), images=(SHOT,), id="c")
    [(_, said)] = await prompts([replace(ASKED, images=()), call], ChatML())
    assert said.startswith("<tool_call>")


async def test_recorded_token_ids_are_sent_as_they_are():
    recorded = replace(ASKED, token_ids=(1, 2, 3), images=(SHOT,))
    context = await transcript(recorded, ANSWER).context(tokenize, ChatML())
    assert context.conversation[0].token_ids == (1, 2, 3)
    assert await remarks([recorded, ANSWER], ChatML()) == [
        "1 image is left out; the token ids of its message are sent as they are recorded"
    ]
    mixed = [replace(recorded, images=(SHOT, SHOT)), replace(ASKED, images=(SHOT,), id="v"), ANSWER]
    assert await remarks(mixed, ChatML()) == [
        (
            "3 images are left out: the model was given a placeholder for 1 of them, [image]; "
            "the token ids of the messages of 2 of them are sent as they are recorded"
        ),
    ]


class Sighted(ToyScorer):
    """A scorer that has never heard of the attribute, as those of third parties."""

    takes_images = True


def test_a_scorer_that_takes_images_is_given_them():
    given = Transcript("file", (), (), (ASKED, ANSWER))
    assert images_for(given, Sighted(), {}) is given
    assert images_for(given, Sighted(), {"server": {"require_images": True}}) is given


def test_images_that_are_required_are_an_error_where_the_scorer_takes_none():
    required = {"server": {"scorer": "toy", "require_images": True}}
    given = Transcript("file", (), (), (ASKED, ANSWER))
    with pytest.raises(ScorerError, match="2 images, and the scorer toy takes none: use") as raised:
        images_for(given, ToyScorer(), required)
    assert "--require-images" in str(raised.value)
    silent = Transcript("file", (), (), (replace(ASKED, images=()), ANSWER))
    assert images_for(silent, ToyScorer(), required) is silent
