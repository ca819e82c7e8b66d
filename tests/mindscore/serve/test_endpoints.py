"""What the endpoints answer, with the toy."""

import math
from dataclasses import replace

import pytest

from mindhooks import Generated, RangeScore, WirePrompt
from mindscore.scorers.toy import ToyScorer

IDS = [5, 6, 5, 5]


async def values(ids, start=1):
    """The toy's log-probabilities, asked directly."""
    prompt = WirePrompt(tuple(ids), (), ((start, len(ids)),), ("all",))
    [[score]] = (await ToyScorer().score([prompt])).ranges
    return list(score.values)


class SpeakingScorer(ToyScorer):
    """A toy that has texts for ids, and ends of its own accord after ``length`` tokens."""

    length = 10**6

    async def detokenize(self, ids):
        return "".join(f"<{it}>" for it in ids)

    async def generate(self, prompt, *, max_tokens, stop):
        said = await super().generate(prompt, max_tokens=min(max_tokens, self.length), stop=stop)
        return Generated(said.token_ids, await self.detokenize(said.token_ids))


# /v1/score


async def test_scoring_answers_a_total_by_range(served):
    async with served() as client:
        asked = {"model": "toy", "prompt": IDS, "score_ranges": [[1, 2], [2, 4]], "logprobs": 1}
        answer = await client.post("/v1/score", asked)
    one, two, three = await values(IDS)
    assert answer.status == 200
    assert [it["total_logprob"] for it in answer.body["scores"]] == [one, math.fsum([two, three])]


async def test_scoring_says_what_was_cached(served):
    class Caching(ToyScorer):
        async def score(self, prompts):
            return replace(await super().score(prompts), computed_tokens=1)

    async with served(Caching()) as client:
        # Of three that are needed, the last is only looked up; one was computed.
        answer = await client.post("/v1/score", {"prompt": IDS, "score_ranges": [[1, 3]]})
    assert answer.body["usage"] == {
        "prompt_tokens": 4,
        "total_tokens": 4,
        "completion_tokens": 0,
        "prompt_tokens_details": {"cached_tokens": 1},
    }


async def test_a_scorer_that_does_not_say_what_it_computed_leaves_the_details_out(served):
    class Silent(ToyScorer):
        async def score(self, prompts):
            return (await super().score(prompts)).ranges

    async with served(Silent()) as client:
        answer = await client.post("/v1/score", {"prompt": IDS, "score_ranges": [[1, 3]]})
        asked = {"prompt": IDS, "prompt_logprobs": 0}
        completed = await client.post("/v1/completions", asked)
    assert answer.body["usage"]["prompt_tokens_details"] is None
    assert completed.body["usage"]["prompt_tokens_details"] is None


async def test_no_ranges_are_no_scores(served):
    async with served() as client:
        answer = await client.post("/v1/score", {"prompt": IDS, "score_ranges": []})
    assert (answer.status, answer.body["scores"]) == (200, [])


@pytest.mark.parametrize("span", [[0, 2], [-1, 2], [2, 2], [3, 2], [1, 5], [4, 5]])
async def test_a_range_that_is_none_is_named(span, served):
    async with served() as client:
        answer = await client.post("/v1/score", {"prompt": IDS, "score_ranges": [[1, 2], span]})
    assert answer.status == 400
    assert answer.error["param"] == "score_ranges[1]"
    assert str(span) in answer.error["message"]


async def test_images_are_refused(served, scored):
    images = {"image": ["data:image/png;base64,AA=="]}
    async with served() as client:
        for path in ("/v1/score", "/v1/completions"):
            answer = await client.post(path, scored(multi_modal_data=images))
            assert (answer.status, answer.error["param"]) == (400, "multi_modal_data")
            assert "no images" in answer.error["message"]


@pytest.mark.parametrize("broken", [math.nan, -math.inf, 0.5])
async def test_what_is_no_log_probability_is_the_servers_failure(broken, served, scored):
    class Broken(ToyScorer):
        async def score(self, prompts):
            return [[RangeScore(broken, (-1.0, broken))]]

    async with served(Broken()) as client:
        scores = await client.post("/v1/score", scored())
        asked = {"prompt": [1, 2, 3], "prompt_logprobs": 0}
        completion = await client.post("/v1/completions", asked)
    for answer in (scores, completion):
        assert (answer.status, answer.error["type"]) == (500, "InternalServerError")
        assert str(broken) in answer.error["message"]


# /v1/completions


async def complete(client, **asked):
    answer = await client.post("/v1/completions", asked)
    assert answer.status == 200
    return answer.body


async def test_a_completion_has_vllms_shape(served):
    async with served() as client:
        body = await complete(client, model="toy", prompt=IDS, max_tokens=2, temperature=0)
    assert (body["object"], body["model"]) == ("text_completion", "toy")
    assert body["id"].startswith("cmpl-")
    assert isinstance(body["created"], int)
    assert body["choices"] == [
        {
            "index": 0,
            "text": "<5> <5>",
            "logprobs": None,
            "finish_reason": "length",
            "stop_reason": None,
            "token_ids": None,
            "prompt_token_ids": None,
            "prompt_logprobs": None,
        }
    ]
    assert body["usage"] == {
        "prompt_tokens": 4,
        "total_tokens": 6,
        "completion_tokens": 2,
        "prompt_tokens_details": None,
    }


async def test_prompt_logprobs_have_one_entry_by_token_and_none_for_the_first(served):
    async with served() as client:
        body = await complete(
            client, prompt=IDS, max_tokens=1, prompt_logprobs=0, return_token_ids=True
        )
    [choice] = body["choices"]
    first, *rest = choice["prompt_logprobs"]
    assert first is None
    assert rest == [
        {str(id_): {"logprob": value, "rank": None, "decoded_token": None}}
        for id_, value in zip(IDS[1:], await values(IDS), strict=True)
    ]
    assert (choice["prompt_token_ids"], choice["token_ids"]) == (IDS, [5])
    assert body["usage"]["prompt_tokens_details"] == {"cached_tokens": 0}


async def test_a_prompt_of_one_token_has_nothing_to_score(served):
    async with served() as client:
        body = await complete(client, prompt=[5], max_tokens=1, prompt_logprobs=1)
    assert body["choices"][0]["prompt_logprobs"] == [None]
    assert body["usage"]["prompt_tokens_details"] == {"cached_tokens": 0}


async def test_several_prompts_are_choices_in_order(served):
    async with served() as client:
        body = await complete(client, prompt=[[5, 6], [7, 8, 8]], max_tokens=1, prompt_logprobs=0)
    assert [it["index"] for it in body["choices"]] == [0, 1]
    assert [len(it["prompt_logprobs"]) for it in body["choices"]] == [2, 3]
    assert body["usage"]["prompt_tokens"] == 5
    assert body["usage"]["completion_tokens"] == 2


async def test_texts_are_tokenised_by_the_scorer(served):
    ids = await ToyScorer().tokenize("tea and tea")
    async with served() as client:
        body = await complete(
            client, prompt=["tea and tea", "dog"], max_tokens=1, return_token_ids=True
        )
    assert body["choices"][0]["prompt_token_ids"] == ids
    assert body["choices"][0]["text"] == "tea"
    assert len(body["choices"]) == 2


async def test_echo_with_logprobs_covers_the_prompt_and_what_was_generated(served):
    async with served(SpeakingScorer()) as client:
        body = await complete(client, prompt=IDS, max_tokens=2, echo=True, logprobs=1)
    [choice] = body["choices"]
    assert choice["text"] == "<5><6><5><5><5><5>"
    assert choice["logprobs"] == {
        "tokens": ["<5>", "<6>", "<5>", "<5>", "<5>", "<5>"],
        "token_logprobs": [None, *await values([*IDS, 5, 5])],
        "top_logprobs": None,
        "text_offset": [0, 3, 6, 9, 12, 15],
    }
    # As vLLM: both forms.
    assert len(choice["prompt_logprobs"]) == len(IDS)


async def test_echo_of_no_tokens_is_the_prompt_alone(served):
    async with served(SpeakingScorer()) as client:
        body = await complete(client, prompt=IDS, max_tokens=0, echo=True, logprobs=0)
    [choice] = body["choices"]
    assert choice["text"] == "<5><6><5><5>"
    assert choice["logprobs"]["token_logprobs"] == [None, *await values(IDS)]
    assert choice["finish_reason"] == "length"
    assert body["usage"]["completion_tokens"] == 0


async def test_logprobs_without_echo_are_those_of_what_was_generated(served):
    async with served(SpeakingScorer()) as client:
        body = await complete(client, prompt=IDS, max_tokens=2, logprobs=1)
    logprobs = body["choices"][0]["logprobs"]
    assert logprobs["tokens"] == ["<5>", "<5>"]
    assert logprobs["token_logprobs"] == await values([*IDS, 5, 5], start=4)


async def test_a_text_is_echoed_as_it_was_sent(served):
    async with served() as client:
        body = await complete(client, prompt="Tea,  please", max_tokens=0, echo=True)
    assert body["choices"][0]["text"] == "Tea,  please"
    assert body["choices"][0]["logprobs"] is None


@pytest.mark.parametrize("as_ids", [True, False])
async def test_a_scorer_without_texts_echoes_numbers(as_ids, served):
    asked = {"echo": True, "logprobs": 1, "return_tokens_as_token_ids": as_ids}
    async with served() as client:
        body = await complete(client, prompt=[5, 6], max_tokens=0, **asked)
    assert body["choices"][0]["logprobs"]["tokens"] == ["token_id:5", "token_id:6"]


async def test_tokens_are_numbers_where_they_are_asked_for(served):
    asked = {"echo": True, "logprobs": 1, "return_tokens_as_token_ids": True}
    async with served(SpeakingScorer()) as client:
        body = await complete(client, prompt=[5, 6], max_tokens=0, **asked)
    assert body["choices"][0]["logprobs"]["tokens"] == ["token_id:5", "token_id:6"]


async def test_a_token_of_stop_ends_a_completion(served):
    async with served() as client:
        body = await complete(
            client, prompt=IDS, max_tokens=5, stop_token_ids=[5], return_token_ids=True
        )
    [choice] = body["choices"]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", 5)
    assert (choice["text"], choice["token_ids"]) == ("", [5])


async def test_an_end_of_the_models_own_is_a_stop_without_a_reason(served):
    scorer = SpeakingScorer()
    scorer.length = 1
    async with served(scorer) as client:
        body = await complete(client, prompt=IDS, max_tokens=5)
    [choice] = body["choices"]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", None)


async def test_16_tokens_are_generated_unless_told_otherwise(served):
    async with served() as client:
        body = await complete(client, prompt=IDS, max_tokens=None)
    assert body["usage"]["completion_tokens"] == 16


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"temperature": 0.7}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 10**9}, "max_tokens"),
        ({"n": 2}, "n"),
        ({"best_of": 3}, "best_of"),
        ({"stream": True}, "stream"),
        ({"stop": ["\n"]}, "stop"),
        ({"suffix": "x"}, "suffix"),
        ({"logprobs": 5}, "logprobs"),
        ({"prompt_logprobs": 2}, "prompt_logprobs"),
        ({"prompt_logprobs": -1}, "prompt_logprobs"),
        ({"echo": "yes"}, "echo"),
        ({"stop_token_ids": ["a"]}, "stop_token_ids[0]"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": [[1], []]}, "prompt"),
        ({"prompt": [[1], "a"]}, "prompt"),
        ({"prompt": [1, "a"]}, "prompt"),
        ({"prompt": [1, [2]]}, "prompt"),
        ({"prompt": " "}, "prompt"),
        ({"prompt": [[1]] * 1025}, "prompt"),
        ({"prompt": [1, -2]}, "prompt[1]"),
        ({"prompt": [1, 2**40]}, "prompt[1]"),
        ({"prompt": [1, 2.5]}, "prompt[1]"),
        ({"prompt": [1, True]}, "prompt[1]"),
        ({"prompt": None}, "prompt"),
        ({"priority": "high"}, "priority"),
    ],
)
async def test_a_completion_that_is_not_to_be_had_is_refused_by_name(asked, param, served):
    async with served() as client:
        answer = await client.post("/v1/completions", {"prompt": IDS, **asked})
    assert (answer.status, answer.error["type"]) == (400, "BadRequestError")
    assert answer.error["param"] == param


@pytest.mark.parametrize("more", [{"top_p": 1.0, "seed": 1, "user": "x"}, {"n": 1, "stream": None}])
async def test_other_fields_are_ignored(more, served):
    async with served() as client:
        body = await complete(client, prompt=IDS, max_tokens=1, **more)
    assert len(body["choices"]) == 1


# texts


@pytest.mark.parametrize("path", ["/tokenize", "/v1/tokenize"])
async def test_tokenising_is_the_scorers(path, served):
    async with served() as client:
        asked = {"model": "toy", "prompt": "green tea", "add_special_tokens": True}
        answer = await client.post(path, asked)
    assert answer.body == {
        "count": 2,
        "max_model_len": None,
        "tokens": await ToyScorer().tokenize("green tea"),
    }


@pytest.mark.parametrize("path", ["/detokenize", "/v1/detokenize"])
async def test_detokenising_is_the_scorers(path, served):
    async with served(SpeakingScorer()) as client:
        answer = await client.post(path, {"tokens": [5, 6]})
    assert answer.body == {"prompt": "<5><6>"}


async def test_a_scorer_that_cannot_detokenise_is_an_error_that_says_so(served):
    async with served() as client:
        answer = await client.post("/detokenize", {"tokens": [5, 6]})
    assert (answer.status, answer.error["type"]) == (501, "NotImplementedError")


# what is served


async def test_the_model_is_listed_with_its_owner_and_its_length(served):
    class Long(ToyScorer):
        context_length = 8192

    async with served(Long()) as client:
        listed = (await client.get("/v1/models")).body
        tokens = (await client.post("/tokenize", {"prompt": "tea"})).body
    assert listed["object"] == "list"
    [model] = listed["data"]
    assert isinstance(model.pop("created"), int)
    assert model == {
        "id": "toy",
        "object": "model",
        "owned_by": "mindscore",
        "root": "toy",
        "parent": None,
        "max_model_len": 8192,
    }
    assert tokens["max_model_len"] == 8192


@pytest.mark.parametrize("length", [None, math.inf])
async def test_a_length_without_bound_is_null(length, served):
    scorer = ToyScorer()
    scorer.context_length = length
    async with served(scorer) as client:
        assert (await client.get("/v1/models")).body["data"][0]["max_model_len"] is None


async def test_health_says_that_nobody_waits(served):
    async with served() as client:
        answer = await client.get("/health")
    assert (answer.status, answer.body) == (200, {"status": "ok", "queued": 0, "busy": False})


async def test_there_is_no_version_that_would_pass_for_vllms(served):
    async with served() as client:
        assert (await client.get("/version")).status == 404


ENDPOINTS = {
    "/v1/score": {"prompt": IDS, "score_ranges": [[1, 2]]},
    "/v1/completions": {"prompt": IDS},
    "/tokenize": {"prompt": "tea"},
    "/detokenize": {"tokens": [5]},
}


@pytest.mark.parametrize(("path", "body"), ENDPOINTS.items())
async def test_another_model_is_an_error_that_names_the_one_served(path, body, served):
    async with served() as client:
        answer = await client.post(path, {"model": "gpt", **body})
    assert (answer.status, answer.error["type"]) == (404, "NotFoundError")
    assert answer.error["param"] == "model"
    assert "toy" in answer.error["message"]
