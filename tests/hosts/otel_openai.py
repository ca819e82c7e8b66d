"""Plain ``openai``-client code that OpenTelemetry instruments, and ``mindscore collect``.

python tests/hosts/otel_openai.py

Not a line of the agent's code knows of mindscore: its spans go where the environment says.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from environment import enter
from model_api import model_api

enter(
    "otel_openai",
    "openai==3.54.0",
    # The instrumentation imports it without asking for it.
    "httpx==0.28.1",
    "opentelemetry-sdk==1.45.2",
    "opentelemetry-exporter-otlp-proto-http==1.45.2",
    "opentelemetry-instrumentation-openai-v2==2.4b0",
    # Later ones have moved what the instrumentation imports.
    "opentelemetry-util-genai==1.0b0",
    "openinference-instrumentation-openai==0.1.66",
)

PATIENCE_S = 60
SYSTEM = "You help Nora. Nora drinks rooibos in the evening."
MEMORIES = {"tea": "Nora drinks rooibos in the evening."}
REPLIES = ("A pot of rooibos in the evening.", "It is called Max.")


@contextmanager
def collector(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A collector with the toy scorer; its first line has the address."""
    memories = folder / "memories.json"
    memories.write_text(json.dumps(MEMORIES))
    command = [
        sys.executable, "-m", "mindscore", "collect", "--port", "0", "--idle-s", "1",
        "--memories", str(memories), "--set", "server.scorer=toy",
        "--set", "memory.token_cutoff=1.0",
    ]  # fmt: skip
    environment = {**os.environ, "XDG_DATA_HOME": str(folder)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            yield process
        finally:
            process.terminate()


def talk(base_url: str) -> None:
    """Two turns of an agent, as its author has it: the second streams."""
    import openai

    client = openai.OpenAI(base_url=base_url, api_key="none")
    messages: list[Any] = [{"role": "system", "content": SYSTEM}]
    for asked, stream in (("What shall I drink?", False), ("What is my dog called?", True)):
        messages.append({"role": "user", "content": asked})
        answer = client.chat.completions.create(model="echo", messages=messages, stream=stream)
        if stream:
            said = "".join(it.choices[0].delta.content or "" for it in answer if it.choices)
        else:
            said = answer.choices[0].message.content
        messages.append({"role": "assistant", "content": said})
    assert [it["content"] for it in messages[2::2]] == list(REPLIES)


def instrumentations() -> Iterator[tuple[str, Any, Any]]:
    """Each instrumentation with its name, and the context in which it names the conversation."""
    from openinference.instrumentation import using_session
    from openinference.instrumentation.openai import OpenAIInstrumentor as OpenInference
    from opentelemetry.instrumentation.openai_v2 import OpenAIInstrumentor

    # It names none: the conversation is called by its first trace.
    yield "OpenTelemetry's own", OpenAIInstrumentor(), nullcontext()
    yield "OpenInference's", OpenInference(), using_session("kitchen")


def main() -> None:
    """Talk under each instrumentation, and look at what the collector has scored."""
    with tempfile.TemporaryDirectory() as folder, collector(Path(folder)) as collecting:
        assert collecting.stdout is not None
        found = re.match(r"collecting at (\S+)/v1/traces", collecting.stdout.readline())
        assert found is not None
        os.environ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] = f"{found[1]}/v1/traces"
        os.environ["OTEL_EXPORTER_OTLP_COMPRESSION"] = "gzip"
        os.environ["OTEL_SEMCONV_STABILITY_OPT_IN"] = "gen_ai_latest_experimental"
        os.environ["OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"] = "span_only"

        import opentelemetry.trace as trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        provider = TracerProvider()
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        trace.set_tracer_provider(provider)
        for name, instrumentation, context in instrumentations():
            instrumentation.instrument(tracer_provider=provider)
            with model_api(*REPLIES) as server, context:
                talk(server.base_url)
            instrumentation.uninstrument()
            assert provider.force_flush()
            line = collecting.stdout.readline()
            scored = re.match(r"(\w+) \(echo\): 2 turns; tea (\d+\.\d) nats, by toy\n", line)
            assert scored is not None, line
            assert (scored[1] == "kitchen") == (name == "OpenInference's"), line
            assert float(scored[2]) > 1
            sys.stdout.write(f"{name}: {line}")
        provider.shutdown()


if __name__ == "__main__":
    main()
