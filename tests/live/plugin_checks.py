"""What the plugin's ``/v1/score`` must do on a real vLLM, by functions that take its address.

python -m tests.live.plugin_checks http://127.0.0.1:8000/v1 MODEL [--key KEY] [--prompts N]

The reference is vLLM's own ``/v1/completions``, which computes each prompt in full.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

CLOSE = 1e-4
"""Nats by which a total may differ from that of the whole prompt."""


@dataclass(frozen=True)
class Server:
    """A vLLM with the plugin, and what it serves."""

    base_url: str
    model: str
    key: str = ""

    def ask(self, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Return the status and the JSON of a POST of ``body``, or of a GET."""
        if self.key:
            headers = {"Authorization": f"Bearer {self.key}", **headers}
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", **headers}
        request = urllib.request.Request(self.base_url + path, data, headers)
        try:
            with urllib.request.urlopen(request, timeout=600) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read() or b"null")

    def score(self, prompt: list[int], ranges: list[list[int]], **more: Any) -> Any:
        """Return the answer to a request for scores that must succeed."""
        body = {"model": self.model, "prompt": prompt, "score_ranges": ranges, "logprobs": 1}
        status, answer = self.ask("/score", {**body, **more})
        assert status == 200, (status, answer)
        return answer

    def whole(self, prompt: list[int], model: str = "") -> list[float]:
        """Return each token's log-probability, by a prompt computed in full; 0 of the first."""
        body = {"model": model or self.model, "prompt": prompt, "max_tokens": 1, "temperature": 0}
        status, answer = self.ask("/completions", {**body, "prompt_logprobs": 0})
        assert status == 200, (status, answer)
        rows = answer["choices"][0]["prompt_logprobs"]
        return [
            row[str(id_)]["logprob"] if row else 0.0 for row, id_ in zip(rows, prompt, strict=True)
        ]


def check_description(server: Server) -> None:
    """``GET`` says who answers."""
    status, answer = server.ask("/score")
    assert status == 200, answer
    assert answer.keys() == {"server", "version", "vllm"}, answer
    assert answer["server"] == "mindscore", answer


def check_fuzz(
    server: Server, *, prompts: int = 200, vocabulary: int = 40_000, block: int = 128, seed: int = 3
) -> dict[str, float]:
    """Prompts that share prefixes, eight at once, some ranges at the edges of blocks.

    Returns:
        Tokens sent and computed, requests, and the largest difference of a total, in nats.
    """
    rng = random.Random(seed)
    trunks = [[rng.randrange(vocabulary) for _ in range(900)] for _ in range(4)]
    asked = []
    for _ in range(prompts):
        trunk = rng.choice(trunks)
        kept = rng.choice([rng.randrange(2, 900), block * rng.randrange(1, 7)])
        prompt = trunk[:kept] + [rng.randrange(vocabulary) for _ in range(rng.randrange(60))]
        asked.append(
            (prompt, [_range(rng, len(prompt), block) for _ in range(rng.randrange(1, 5))])
        )
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda it: server.score(*it), asked))
        values = list(pool.map(lambda it: server.whole(it[0]), asked))
    worst = 0.0
    for (prompt, ranges), answer, whole in zip(asked, answers, values, strict=True):
        assert len(answer["scores"]) == len(ranges)
        for (start, end), found in zip(ranges, answer["scores"], strict=True):
            assert len(found["token_logprobs"]) == end - start
            worst = max(worst, abs(found["total_logprob"] - sum(whole[start:end])))
        used = answer["usage"]
        assert used["prompt_tokens"] == used["total_tokens"] == len(prompt)
        scored = {at for start, end in ranges for at in range(start, end)}
        assert used["prompt_tokens_details"]["cached_tokens"] <= len(prompt) - len(scored)
    assert worst <= CLOSE, f"a total is {worst} nats from that of the whole prompt"
    sent = sum(len(prompt) for prompt, _ in asked)
    cached = sum(it["usage"]["prompt_tokens_details"]["cached_tokens"] for it in answers)
    return {"requests": prompts, "sent": sent, "computed": sent - cached, "worst": worst}


def _range(rng: random.Random, length: int, block: int) -> list[int]:
    edges = [
        at + by for at in range(0, length, block) for by in (-1, 0, 1, 2) if 1 <= at + by < length
    ]
    start = rng.choice(edges) if edges and rng.random() < 0.5 else rng.randrange(1, length)
    return [start, min(length, start + rng.choice([1, 2, 5, rng.randrange(1, 300)]))]


def check_reuse(server: Server, *, length: int = 1200, block: int = 128) -> None:
    """A second request computes from the block of its first scored row on, and no more."""
    rng = random.Random(time.time_ns())
    prompt = [rng.randrange(40_000) for _ in range(length)]
    for start in (length - 1, block * 4 + 1, block * 4, block * 4 + 2, 1):
        totals = set()
        for cached in (0, (start - 1) // block * block):
            if start != length - 1 and not cached:
                continue
            answer = server.score(prompt, [[start, length]])
            assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] == cached, (
                start,
                answer["usage"],
            )
            totals.add(answer["scores"][0]["total_logprob"])
        assert not totals or max(totals) - min(totals) <= CLOSE, totals


def check_no_reuse(server: Server) -> None:
    """Where nothing may be cached, the same prompt is computed anew, with the same values."""
    prompt = list(range(7, 700))
    first, second = (server.score(prompt, [[600, 693]]) for _ in range(2))
    assert second["usage"]["prompt_tokens_details"]["cached_tokens"] == 0, second["usage"]
    assert abs(first["scores"][0]["total_logprob"] - second["scores"][0]["total_logprob"]) <= CLOSE


def check_errors(server: Server, *, max_model_len: int = 4096) -> None:
    """Each refusal has vLLM's form, its status and the field."""
    good = {"model": server.model, "prompt": [5, 6, 7, 8], "score_ranges": [[1, 4]]}
    cases: list[tuple[dict[str, Any], int, str | None]] = [
        ({"model": "nobody"}, 404, "model"),
        ({"prompt": list(range(max_model_len + 1))}, 400, "input_tokens"),
        ({"prompt": [5, 6, -1]}, 400, "prompt[2]"),
        ({"prompt": [5, 6, 10**8, 7]}, 400, "prompt"),
        ({"prompt": [5, "6"]}, 400, "prompt[1]"),
        ({"prompt": []}, 400, "prompt"),
        ({"score_ranges": [[0, 2]]}, 400, "score_ranges[0]"),
        ({"score_ranges": [[1, 2], [3, 5]]}, 400, "score_ranges[1]"),
        ({"score_ranges": [[2, 2]]}, 400, "score_ranges[0]"),
        ({"score_ranges": [[1]]}, 400, "score_ranges[0]"),
        ({"score_ranges": [[1, 4]] * 11}, 400, "score_ranges"),
        ({"priority": "high"}, 400, "priority"),
        (
            {"multi_modal_data": {"image": ["http://127.0.0.1:1/a.png"]}},
            400,
            "multi_modal_data.image[0]",
        ),
        ({"multi_modal_data": {"video": []}}, 400, "multi_modal_data"),
    ]
    for change, status, param in cases:
        got, answer = server.ask("/score", {**good, **change})
        assert got == status, (change if len(str(change)) < 200 else status, got, answer)
        error = answer["error"]
        assert error.keys() == {"message", "type", "param", "code"}, answer
        assert error["code"] == status, answer
        assert error["param"] == param, (param, answer)
    assert server.ask("/score", b"{")[0] == 400
    assert server.ask("/score", b"\xff\xfe")[0] == 400
    assert server.ask("/score", good, **{"Content-Type": "text/plain"})[0] == 400


def check_details(server: Server) -> None:
    """No ranges, other fields, a priority and an id of the request change no value."""
    prompt, ranges = list(range(50, 90)), [[10, 20], [5, 40], [10, 20]]
    assert server.score(prompt, [])["scores"] == []
    plain = server.score(prompt, ranges)["scores"]
    assert plain == server.score(prompt, ranges, priority=7, logprobs=None, stream=False)["scores"]
    for id_ in ("same", "same", "x" * 2000):
        body = {"model": server.model, "prompt": prompt, "score_ranges": ranges}
        status, answer = server.ask("/score", body, **{"X-Request-Id": id_})
        assert (status, answer["scores"]) == (200, plain), answer
    assert plain[0] == plain[2]


def check_key(server: Server) -> None:
    """Without vLLM's key, or with another, neither method is answered."""
    for key in ("", "wrong"):
        stranger = Server(server.base_url, server.model, key)
        assert stranger.ask("/score")[0] == 401
        body = {"model": server.model, "prompt": [1, 2], "score_ranges": [[1, 2]]}
        assert stranger.ask("/score", body)[0] == 401
    check_description(server)


def check_cancellation(server: Server, *, length: int = 3900, requests: int = 12) -> None:
    """Clients that go away are no longer computed for: their requests leave the engine."""
    at = urlsplit(server.base_url)
    rng = random.Random(time.time_ns())
    connections = []
    for _ in range(requests):
        prompt = [rng.randrange(40_000) for _ in range(length)]
        body = {"model": server.model, "prompt": prompt, "score_ranges": [[1, length]]}
        connection = http.client.HTTPConnection(str(at.hostname), at.port)
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {server.key}"}
        connection.request("POST", f"{at.path}/score", json.dumps(body), headers)
        connections.append(connection)
    until = time.monotonic() + 60
    while not (before := _unfinished(server)):
        assert time.monotonic() < until, "the requests never reached the engine"
    done = _metric(server, "vllm:request_success_total{", 'finished_reason="length"')
    for connection in connections:
        connection.close()
    while _unfinished(server):
        assert time.monotonic() < until, "requests of clients that are gone are still computed"
        time.sleep(0.1)
    finished = _metric(server, "vllm:request_success_total{", 'finished_reason="length"') - done
    assert finished < before, f"all of {before} requests were computed to their end"


def _unfinished(server: Server) -> float:
    return _metric(server, "vllm:num_requests_running") + _metric(
        server, "vllm:num_requests_waiting{"
    )


def _metric(server: Server, name: str, label: str = "") -> float:
    root = server.base_url.removesuffix("/v1")
    with urllib.request.urlopen(f"{root}/metrics", timeout=60) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(it.rsplit(" ", 1)[1]) for it in lines if it.startswith(name) and label in it)


def check_adapters(server: Server, *names: str) -> None:
    """Adapters are scored under the names that vLLM serves, each from its own cached prefixes."""
    prompt = [(it * 37) % 30_000 for it in range(600)]
    totals = {}
    for name in (server.model, *names, server.model, *names):
        [found] = server.score(prompt, [[500, 600]], model=name)["scores"]
        whole = sum(server.whole(prompt, name)[500:600])
        assert abs(found["total_logprob"] - whole) <= CLOSE, (name, found["total_logprob"], whole)
        totals[name] = whole
    assert len(set(totals.values())) == len(names) + 1, totals


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("base_url")
    parser.add_argument("model")
    parser.add_argument("--key", default="")
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--block", type=int, default=128)
    parser.add_argument("--adapter", action="append", default=[])
    parser.add_argument("--no-cache", action="store_true")
    options = parser.parse_args()
    server = Server(options.base_url, options.model, options.key)
    check_description(server)
    check_errors(server)
    check_details(server)
    if options.key:
        check_key(server)
    if options.adapter:
        check_adapters(server, *options.adapter)
    if options.no_cache:
        check_no_reuse(server)
    else:
        check_reuse(server, block=options.block)
    sys.stdout.write(f"{check_fuzz(server, prompts=options.prompts, block=options.block)}\n")
    check_cancellation(server)
    check_details(server)
    sys.stdout.write("all as expected\n")


if __name__ == "__main__":
    main()
