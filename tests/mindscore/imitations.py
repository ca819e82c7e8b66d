"""Stand-ins of stock model servers: real HTTP on loopback, their JSON shapes, the toy's numbers.

``async with VLLMImitation() as server`` (or ``with``, from code that is not async) starts one in a
thread of its own; ``server.url`` is its root, ``server.requests`` what it was asked. An adapter's
totals are those of ``ToyScorer`` unless the server has a ``fault``:

omit       no log-probabilities of the prompt, HTTP 200
shift      entry i holds the value of token i + 1
itself     entry i is conditioned on token i itself too (llama-cpp-python without BOS)
constant   the same value everywhere
stale      a prompt gets the values of an earlier one of the same length or beginning (a cache bug)
nan        values are not numbers (null where the server would write null)
clamp      values are -9999, what servers make of minus infinity
logits     values are above 0
truncate   the prompt is cut to half of it
wrong-ids  the values are said to be those of other tokens
"""

import asyncio
import base64
import io
import json
import math
import threading
from dataclasses import dataclass
from typing import Any, ClassVar

from aiohttp import web

from mindhooks import WirePrompt
from mindscore.scorers.toy import VOCABULARY, ToyScorer

FAULTS = (
    *("omit", "shift", "itself", "constant", "stale"),
    *("nan", "clamp", "logits", "truncate", "wrong-ids"),
)


@dataclass(frozen=True)
class Request:
    """One request as the server got it; ``body`` is ``None`` for a GET."""

    method: str
    path: str
    headers: Any
    body: Any


class Together:
    """A server's handler that answers ``count`` requests at once, and tells ``most`` of them."""

    def __init__(self, count: int, answer: dict[str, Any]) -> None:
        self.most = 0
        self._under_way = 0
        self._meet = asyncio.Barrier(count)
        self._answer = answer

    async def __call__(self, request: web.Request) -> web.Response:
        self._under_way += 1
        self.most = max(self.most, self._under_way)
        async with self._meet:
            # Time for one request too many to arrive.
            await asyncio.sleep(0.01)
        self._under_way -= 1
        return web.json_response(self._answer)


class RefusedError(Exception):
    """What the server answers instead: a status and an error's text."""

    def __init__(self, status, message):
        super().__init__(message)
        self.status, self.message = status, message


async def stop(runner):
    """End a server; whom it still writes to, or accepted in the last moment, is not left open."""
    server = runner.server
    transports = {connection.transport for connection in server.connections}
    await runner.cleanup()
    for _ in range(5):
        await asyncio.sleep(0)
        transports |= {connection.transport for connection in server.connections}
    for transport in transports - {None}:
        transport.abort()
    # On a busy machine, what was let in in the last moment gets its transport late.
    await asyncio.sleep(0.01)
    for connection in server.connections:
        if connection.transport is not None:
            connection.transport.abort()
    await asyncio.sleep(0)


class Imitation:
    """What the servers share: the thread, the record, the values and the faults in them.

    ``delay_s`` passes before each answer to a POST; ``abandoned`` counts the requests whose client
    went away meanwhile. ``key`` is the API key that is wanted; a prompt longer than
    ``max_model_len`` is refused, and with it the whole request.
    """

    routes: ClassVar = {}

    def __init__(self, *, fault=None, delay_s=0.0, key=None, max_model_len=10**9):
        assert fault is None or fault in FAULTS
        self.fault = fault
        self.delay_s = delay_s
        self.key = key
        self.max_model_len = max_model_len
        self.requests = []
        self.abandoned = 0
        self.under_way = 0
        self.most_under_way = 0
        self.toy = ToyScorer()
        self._answered = []

    @property
    def paths(self):
        """The paths of the requests so far, in order."""
        return [request.path for request in self.requests]

    # -- values -----------------------------------------------------------------------------------

    async def logprobs(self, ids):
        """One value per token, faults included; ``None`` for the first."""
        if self.fault == "constant":
            values = [None, *[-1.0] * (len(ids) - 1)]
        elif self.fault == "nan":
            values = [None, *[math.nan] * (len(ids) - 1)]
        elif self.fault == "clamp":
            values = [None, *[-9999.0] * (len(ids) - 1)]
        elif self.fault == "itself":
            longer = [[*ids[: index + 1], ids[index]] for index in range(1, len(ids))]
            values = [None, *[(await self._honest(it))[-1] for it in longer]]
        else:
            values = await self._honest(ids)
        if self.fault == "logits":
            values = [None, *[20.0 + value for value in values[1:]]]
        if self.fault == "shift":
            values = [None, *values[2:], values[-1]] if len(values) > 2 else values
        if self.fault == "stale":
            values = self._stale(ids, values)
        return values

    async def _honest(self, ids):
        ranges = tuple((index, index + 1) for index in range(1, len(ids)))
        prompt = WirePrompt(tuple(ids), (), ranges, tuple(str(start) for start, _ in ranges))
        [scores] = (await self.toy.score([prompt])).ranges
        return [None, *[score.total for score in scores]]

    def _stale(self, ids, values):
        for earlier, known in self._answered:
            if len(earlier) == len(ids) or earlier[:1] == ids[:1]:
                return [*known[: len(ids)], *values[len(known) :]]
        self._answered.append((ids, values))
        return values

    def said_ids(self, ids):
        """The ids that the server says its values are of."""
        return [(it + 1) % VOCABULARY for it in ids] if self.fault == "wrong-ids" else list(ids)

    def kept(self, ids):
        """What the server makes of a prompt."""
        if len(ids) > self.max_model_len:
            raise RefusedError(
                400,
                f"This model's maximum context length is {self.max_model_len} tokens. However, "
                f"your prompt contains {len(ids)} input tokens.",
            )
        return ids[: (len(ids) + 1) // 2] if self.fault == "truncate" else ids

    async def continuation(self, ids, max_tokens, stop):
        """Greedy, by the toy."""
        return await self.toy.generate(
            WirePrompt(tuple(ids), (), (), ()), max_tokens=max_tokens, stop=stop or ()
        )

    # -- HTTP -------------------------------------------------------------------------------------

    def is_open(self, path):
        """Whether the key is not asked for at this path."""
        return False

    def error(self, status, message):
        """The body of an error."""
        return {"error": {"message": message, "type": "BadRequestError", "code": status}}

    async def _answer(self, request):
        raw = await request.read()
        body = json.loads(raw) if raw else None
        self.requests.append(Request(request.method, request.path, request.headers.copy(), body))
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            if request.method == "POST":
                await asyncio.sleep(self.delay_s)
            return await self._answered_with(request, body)
        except RefusedError as refusal:
            return web.json_response(
                self.error(refusal.status, refusal.message), status=refusal.status
            )
        except asyncio.CancelledError:
            self.abandoned += 1
            raise
        finally:
            self.under_way -= 1

    async def _answered_with(self, request, body):
        key = f"Bearer {self.key}"
        sent = request.headers.get("Authorization")
        if self.key and sent != key and not self.is_open(request.path):
            return web.json_response({"error": "Unauthorized"}, status=401)
        name = self.routes.get((request.method, request.path))
        if name is None:
            return web.json_response({"detail": "Not Found"}, status=404)
        answer = getattr(self, name)
        return web.json_response(await (answer() if body is None else answer(body)))

    async def __aenter__(self):
        return self.__enter__()

    async def __aexit__(self, *_):
        self.__exit__()

    def __enter__(self):
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.url = self._run(self._start())
        return self

    def __exit__(self, *_):
        self._run(stop(self._runner))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self):
        app = web.Application(client_max_size=2**30)
        app.router.add_route("*", "/{path:.*}", self._answer)
        # A handler ends when its client goes away, as in the servers that stop work then.
        self._runner = web.AppRunner(
            app, access_log=None, shutdown_timeout=0.01, handler_cancellation=True
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    def _run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)


class CompletionsImitation(Imitation):
    """``/v1/completions`` and ``/v1/models`` of an OpenAI-style server that echoes token ids.

    ``owned_by`` is what it says of its model; with ``generated`` false, the entry of the token that
    it generated is not in what it echoes; with ``cached`` (tokens a prompt), usage has details.
    """

    owned_by = "somebody"
    routes: ClassVar = {("POST", "/v1/completions"): "completions", ("GET", "/v1/models"): "models"}

    def __init__(self, *, generated=True, cached=None, **options):
        super().__init__(**options)
        self.generated = generated
        self.cached = cached

    async def models(self):
        entry = {"id": "toy", "object": "model", "created": 1, "owned_by": self.owned_by}
        return {"object": "list", "data": [entry]}

    async def completions(self, body):
        prompts = body["prompt"]
        if isinstance(prompts, str) or (prompts and isinstance(prompts[0], str)):
            raise RefusedError(400, "this imitation takes token ids")
        prompts = [prompts] if isinstance(prompts[0], int) else prompts
        kept = [self.kept(ids) for ids in prompts]
        numbered = enumerate(kept)
        choices = [await self.choice(index, ids, body) for index, ids in numbered]
        sent = sum(len(ids) for ids in kept)
        details = None if self.cached is None else {"cached_tokens": self.cached * len(kept)}
        return {
            "id": "cmpl-1",
            "object": "text_completion",
            "created": 1,
            "model": body.get("model", "toy"),
            # A server may answer in any order: index says which is which.
            "choices": choices[::-1],
            "usage": {
                "prompt_tokens": sent,
                "total_tokens": sent + len(kept),
                "completion_tokens": len(kept),
                "prompt_tokens_details": details,
            },
        }

    async def choice(self, index, ids, body):
        """One prompt's answer."""
        said = await self.continuation(ids, body.get("max_tokens", 16), body.get("stop_token_ids"))
        choice = {"index": index, "text": said.text, "logprobs": None, "finish_reason": "length"}
        if body.get("echo") and body.get("logprobs") is not None:
            choice["text"] = "".join(f"<{it}>" for it in [*ids, *said.token_ids])
            choice["logprobs"] = await self.echoed(ids, said.token_ids, body)
        if body.get("return_token_ids"):
            choice |= {"token_ids": said.token_ids, "prompt_token_ids": self.said_ids(ids)}
        return choice

    async def echoed(self, ids, generated, body):
        """The legacy log-probabilities: of the prompt, then of what was generated."""
        tail = len(generated) if self.generated else 0
        values = [*await self.logprobs(ids), *[-0.5] * tail]
        every = [*self.said_ids(ids), *generated[:tail]]
        if self.fault == "omit":
            values = [None] * len(values)
        mark = "token_id:" if body.get("return_tokens_as_token_ids") else "t"
        tokens = [f"{mark}{it}" for it in every]
        top = zip(tokens, values, strict=True)
        top = [None if value is None else {token: value} for token, value in top]
        offsets = [0] * len(every)
        return {
            "tokens": tokens,
            "token_logprobs": values,
            "top_logprobs": top,
            "text_offset": offsets,
        }


class OpenAIImitation(CompletionsImitation):
    """A plain OpenAI-style server; ``token_ids``: it says its ids, as Fireworks does.

    With ``tokenizes`` it has vLLM's ``/tokenize`` and ``/detokenize``.
    """

    def __init__(self, *, token_ids=False, tokenizes=False, **options):
        super().__init__(**options)
        self.token_ids = token_ids
        if tokenizes:
            routes = {("POST", f"/{it}"): it for it in ("tokenize", "detokenize")}
            self.routes = {**self.routes, **routes}

    async def echoed(self, ids, generated, body):
        echoed = await super().echoed(ids, generated, body)
        if self.token_ids:
            tail = list(generated) if self.generated else []
            echoed["token_ids"] = [*self.said_ids(ids), *tail]
        return echoed

    async def tokenize(self, body):
        ids = await self.toy.tokenize(body["prompt"])
        return {"count": len(ids), "tokens": ids}

    async def detokenize(self, body):
        return {"prompt": " ".join(await self.toy.token_texts(body["tokens"]))}


class VLLMImitation(CompletionsImitation):
    """vLLM, with a prefix cache by salt and block.

    ``generate`` says what ``/inference/v1/generate`` does: ``"off"`` (403, as without
    ``--enable-scale-out``), ``"on"`` (the V2 runner), ``"v1-runner"`` (400 for rows, but entries),
    ``"no-rows"`` (they are null), or ``"missing"`` (404). ``computed`` counts the tokens that it
    computed. The cache is off without ``caching``; ``salts`` false: it ignores them. ``says(hit)``
    is what usage has for a request that may read the cache; without ``details`` there is nothing.
    ``junk`` is what the V1 runner has for entries that it does not compute: ``"ids"`` that are not
    the prompt's, ``"right"`` ids with other values, or ``"nan"``, for which the request fails.
    ``drops`` entries that it computes from the answers that may read the cache; ``evicts``: that
    many prompts are cached. ``plugin``: it has mindscore's.
    """

    owned_by = "vllm"
    routes: ClassVar = {
        **CompletionsImitation.routes,
        ("GET", "/version"): "version_",
        ("POST", "/tokenize"): "tokenize",
        ("POST", "/detokenize"): "detokenize",
        ("POST", "/inference/v1/generate"): "generate_",
    }

    def __init__(
        self,
        *,
        version="0.33.0",
        generate="off",
        block=16,
        caching=True,
        details=True,
        salts=True,
        says=lambda hit: hit,
        junk="ids",
        drops=0,
        evicts=10**9,
        metrics=True,
        plugin=False,
        **options,
    ):
        super().__init__(**options)
        self.version = version
        self.generate = generate
        self.block, self.caching, self.salts, self.evicts = block, caching, salts, evicts
        self.details, self.says, self.junk, self.drops = details, says, junk, drops
        self.metrics = metrics
        self.computed = 0
        self.blocks = {}
        if plugin:
            routes = {("GET", "/v1/score"): "plugin_", ("POST", "/v1/score"): "score_"}
            self.routes = {**self.routes, **routes}

    async def _answered_with(self, request, body):
        if request.path == "/metrics" and self.metrics:
            labels = f'block_size="{self.block}",enable_prefix_caching="{self.caching}"'
            return web.Response(text=f"# HELP\nvllm:cache_config_info{{{labels}}} 1.0\n")
        return await super()._answered_with(request, body)

    def _hit(self, ids, salt, most):
        """The tokens of ``ids`` that are cached, of at most ``most``; all of them are then."""
        salt = salt if self.salts else None
        keys = [(salt, *ids[:end]) for end in range(self.block, len(ids) + 1, self.block)]
        reach = [key for key in keys if len(key) - 1 <= most]
        found = next((at for at, key in enumerate(reach) if key not in self.blocks), len(reach))
        if self.caching:
            self.blocks.update(dict.fromkeys(keys))
            while len(self.blocks) > self.evicts:
                del self.blocks[next(iter(self.blocks))]
        self.computed += len(ids) - found * self.block
        return found * self.block

    async def plugin_(self):
        return {"server": "mindscore", "version": "1.0", "vllm": self.version}

    async def score_(self, body):
        ids = self.kept(body["prompt"])
        hit = self._hit(ids, None, min(start for start, _ in body["score_ranges"]) - 1)
        values = await self.logprobs(ids)
        parts = [values[start:end] for start, end in body["score_ranges"]]
        details = {"cached_tokens": hit}
        usage = {"prompt_tokens": len(ids), "completion_tokens": 0, "total_tokens": len(ids)}
        return {
            "scores": [{"total_logprob": math.fsum(it), "token_logprobs": it} for it in parts],
            "usage": {**usage, "prompt_tokens_details": details},
        }

    def is_open(self, path):
        return not path.startswith(("/v1", "/inference"))

    async def version_(self):
        return {"version": self.version}

    async def models(self):
        answer = await super().models()
        answer["data"][0]["max_model_len"] = self.max_model_len
        return answer

    async def tokenize(self, body):
        ids = await self.toy.tokenize(body["prompt"])
        return {"count": len(ids), "max_model_len": 1, "tokens": ids, "token_strs": None}

    async def detokenize(self, body):
        return {"prompt": " ".join(await self.toy.token_texts(body["tokens"]))}

    async def completions(self, body):
        if body.get("max_tokens", 16) < 1 and not body.get("echo"):
            raise RefusedError(400, "max_tokens must be at least 1, got 0.")
        return await super().completions(body)

    async def choice(self, index, ids, body):
        choice = {"stop_reason": None, "token_ids": None, "prompt_token_ids": None}
        choice |= {"prompt_logprobs": None, **await super().choice(index, ids, body)}
        echoes = body.get("echo") and body.get("logprobs") is not None
        if (echoes or body.get("prompt_logprobs") is not None) and self.fault != "omit":
            entries = zip(self.said_ids(ids), await self.logprobs(ids), strict=True)
            choice["prompt_logprobs"] = [
                None
                if value is None
                else {str(said): {"logprob": value, "rank": 1, "decoded_token": f" t{said}"}}
                for said, value in entries
            ]
        return choice

    async def generate_(self, body):
        if self.generate == "missing":
            raise RefusedError(404, "Not Found")
        if self.generate == "off":
            raise RefusedError(
                403,
                "Scale-out endpoints are disabled. Restart vllm serve with --enable-scale-out to "
                "enable them.",
            )
        params, asked = body["sampling_params"], "prompt_logprob_token_ids"
        if asked in params and self.generate == "v1-runner":
            raise RefusedError(400, f"{asked} requires the V2 model runner.")
        ids = self.kept(body["token_ids"])
        reads = params.get("skip_reading_prefix_cache") is False
        hit = self._hit(ids, body.get("cache_salt"), len(ids) - 1 if reads else 0)
        if asked in params:
            scored = {"prompt_token_id_logprobs": await self._rows(ids, params, hit)}
        else:
            scored = {"prompt_logprobs": await self._entries(ids, hit, reads)}
        usage = {"prompt_tokens": len(ids), "total_tokens": len(ids) + 1}
        if self.details:
            usage["prompt_tokens_details"] = {"cached_tokens": self.says(hit) if reads else hit}
        return {
            "request_id": "generate-tokens-1",
            "model": "toy",
            "created": 1,
            "usage": usage,
            "output_mode": "tokens",
            "choices": [{"index": 0, "finish_reason": "length", "token_ids": [11]}],
            "prompt_logprobs": None,
            "prompt_token_id_logprobs": None,
            "prompt_token_ids": None,
            **scored,
        }

    async def _rows(self, ids, params, hit):
        start, rows = params["prompt_logprob_start"], params["prompt_logprob_token_ids"]
        if self.fault != "truncate" and len(rows) != len(ids) - 1 - start:
            raise RefusedError(400, f"expected {len(ids) - 1 - start} rows, got {len(rows)}")
        if self.generate == "no-rows" or self.fault == "omit" or hit > start:
            return None
        return await self._npy(ids, start, rows)

    async def _entries(self, ids, hit, reads):
        """The entries; of what it took from its cache, the V1 runner's have what was in memory."""
        if self.generate == "no-rows" or self.fault == "omit":
            return None
        values, said = await self.logprobs(ids), self.said_ids(ids)
        if hit and self.junk == "nan":
            raise RefusedError(400, "Out of range float values are not JSON compliant")
        for index in range(1, hit + 1):
            values[index] = -1.0 - index % 5
            said[index] = ids[index] if self.junk == "right" else 7 - index
        entries = [
            None if value is None else {str(id_): {"logprob": value, "rank": 1}}
            for id_, value in zip(said, values, strict=True)
        ]
        if self.generate == "on":
            # The V2 runner has those that it computed.
            entries = [None, *entries[hit + 1 :]]
        return entries[: max(0, len(entries) - self.drops)] if reads else entries

    async def _npy(self, ids, start, rows):
        import numpy as np

        width = max((len(row) for row in rows), default=0)
        table = np.full((max(0, len(ids) - 1 - start), width), -np.inf, dtype=np.float32)
        values = await self.logprobs(ids)
        for number, row in enumerate(rows[: len(table)]):
            for column, token in enumerate(row):
                if token == ids[start + number + 1]:
                    table[number, column] = values[start + number + 1]
        file = io.BytesIO()
        np.save(file, table)
        return base64.b64encode(file.getvalue()).decode()


class SGLangImitation(Imitation):
    """SGLang; its radix cache shows in ``cached_tokens``. ``vocabulary``: ids from its last one on
    are reported as 0, as SGLang does with what it takes for image padding."""

    routes: ClassVar = {
        ("GET", "/server_info"): "server_info",
        ("GET", "/model_info"): "model_info",
        ("GET", "/v1/models"): "models",
        ("POST", "/generate"): "generate",
        ("POST", "/tokenize"): "tokenize",
        ("POST", "/detokenize"): "detokenize",
    }

    def __init__(self, *, vocabulary=VOCABULARY, **options):
        super().__init__(**options)
        self.vocabulary = vocabulary
        self._cache = []

    def error(self, status, message):
        return {"error": {"message": message}}

    async def server_info(self):
        return {"version": "0.5.23", "model_path": "toy", "max_total_num_tokens": 1000}

    async def model_info(self):
        return {"model_path": "toy", "tokenizer_path": "toy", "is_generation": True}

    async def models(self):
        return {"object": "list", "data": [{"id": "toy", "object": "model", "owned_by": "sglang"}]}

    async def tokenize(self, body):
        ids = await self.toy.tokenize(body["prompt"])
        return {"tokens": ids, "count": len(ids), "max_model_len": 1}

    async def detokenize(self, body):
        return {"text": " ".join(await self.toy.token_texts(body["tokens"]))}

    async def generate(self, body):
        prompts, starts = body["input_ids"], body.get("logprob_start_len", -1)
        if prompts and isinstance(prompts[0], int):
            return await self._one(self.kept(prompts), starts, body)
        kept = [self.kept(ids) for ids in prompts]
        starts = starts if isinstance(starts, list) else [starts] * len(kept)
        return [await self._one(*each, body) for each in zip(kept, starts, strict=True)]

    async def _one(self, ids, start, body):
        params = body["sampling_params"]
        most = params["max_new_tokens"]
        said = await self.continuation(ids, most, params.get("stop_token_ids"))
        meta = {
            "id": "abc",
            "finish_reason": {"type": "length", "length": most},
            "prompt_tokens": len(ids),
            "completion_tokens": len(said.token_ids),
            "cached_tokens": self._cached(ids, start if start >= 0 else len(ids)),
            "weight_version": "default",
        }
        if body.get("return_logprob") and self.fault != "omit":
            values = await self.logprobs(ids)
            ids_ = [0 if it >= self.vocabulary - 1 else it for it in self.said_ids(ids)]
            pairs = list(zip(values, ids_, strict=True))[start if start >= 0 else len(ids) :]
            meta["input_token_logprobs"] = [
                [None if index == 0 or value is None or math.isnan(value) else value, said_id, None]
                for index, (value, said_id) in enumerate(pairs)
            ]
            meta["output_token_logprobs"] = []
        return {"text": said.text, "output_ids": list(said.token_ids), "meta_info": meta}

    def _cached(self, ids, limit):
        limit = max(0, min(len(ids) - 1, limit))
        best = 0
        for earlier in self._cache:
            shared = 0
            for mine, theirs in zip(ids[:limit], earlier, strict=False):
                if mine != theirs:
                    break
                shared += 1
            best = max(best, shared)
        self._cache.append(ids)
        return best
