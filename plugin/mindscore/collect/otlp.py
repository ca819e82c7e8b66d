"""OTLP over HTTP, by ``opentelemetry-proto``: spans one by one, and what is answered.

Nothing else imports that package. JSON is read into the same types as protobuf.
"""

from __future__ import annotations

import base64
import gzip
import io
import re
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from google.protobuf.message import DecodeError
from msgspec import Struct
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from mindscore._util.text import printable, shortened
from mindscore.http.refusals import RefusedError

JSON = "application/json"
PROTOBUF = "application/x-protobuf"

MAX_BYTES = 16 * 2**20
"""Size of a request's body, decompressed too."""

MAX_SPANS = 100_000
"""Spans of one request."""

MAX_JSON_SPAN_BYTES = 4 * 2**20
"""Size of one span as JSON, which takes a hundred times as long to read as protobuf."""

MAX_ID_BYTES = 24
"""Size of a trace's id, whose 32 digits count as base64 in JSON."""

NO_IDS = frozenset(bytes(it) for it in (8, 16)) | {base64.b64decode("0" * it) for it in (16, 32)}
"""Ids of zeros, of a span and of a trace, as protobuf has them and as JSON has."""

SAID_CHARACTERS = 300
"""Longest reason of a refusal."""


def _spans_unparsed() -> type[Any]:
    """Return ``ExportTraceServiceRequest`` as it is on the wire, with its spans as bytes.

    An empty span is two bytes there, and 80 times as much once it is parsed.
    """
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="mindscore/spans.proto", syntax="proto3")
    inner = (("Request", 1, "ResourceSpans"), ("ResourceSpans", 2, "ScopeSpans"))
    for name, number, of in inner:
        file.message_type.add(name=name).field.add(
            name="inner",
            number=number,
            label=field.LABEL_REPEATED,
            type=field.TYPE_MESSAGE,
            type_name=f".{of}",
        )
    file.message_type.add(name="ScopeSpans").field.add(
        name="spans", number=2, label=field.LABEL_REPEATED, type=field.TYPE_BYTES
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    made: type[Any] = message_factory.GetMessageClass(pool.FindMessageTypeByName("Request"))
    return made


_Request = _spans_unparsed()


class _JsonScope(Struct, rename="camel"):
    spans: list[msgspec.Raw] = []


class _JsonResource(Struct, rename="camel"):
    scope_spans: list[_JsonScope] = []


class _JsonRequest(Struct, rename="camel"):
    resource_spans: list[_JsonResource] = []


def decompress(raw: bytes, encoding: str) -> bytes:
    """Return a body without its compression.

    Raises:
        RefusedError: the compression is unknown, or the body too large or damaged.
    """
    if encoding == "identity":
        return raw
    if encoding != "gzip":
        raise RefusedError(415, "expected Content-Encoding: gzip, or none")
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(raw)) as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error):
        raise RefusedError(400, "the body is not gzip, as its Content-Encoding says") from None
    if len(content) > MAX_BYTES:
        raise RefusedError(413, f"the body is over {MAX_BYTES} bytes once it is decompressed")
    return content


def split(raw: bytes, kind: str) -> Sequence[Any]:
    """Return the spans of a request, unparsed; ``kind`` is its content type.

    Raises:
        RefusedError: it is no ``ExportTraceServiceRequest``, or has too many spans.
    """
    found: list[Any] = []
    try:
        if kind == JSON:
            given = msgspec.json.decode(raw, type=_JsonRequest)
            inner: Iterable[Any] = (it for each in given.resource_spans for it in each.scope_spans)
        else:
            inner = (it for each in _Request.FromString(raw).inner for it in each.inner)
        for scope in inner:
            if len(found) + len(scope.spans) > MAX_SPANS:
                raise RefusedError(413, f"more than {MAX_SPANS} spans: send them in parts")
            found += scope.spans
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, DecodeError) as error:
        # protobuf's own words name a type and nothing of the content; msgspec's, the field.
        why = shortened(printable(str(error)), SAID_CHARACTERS)
        raise RefusedError(400, f"not an ExportTraceServiceRequest: {why}") from None
    return found


def read_span(raw: Any, kind: str) -> dict[str, Any]:
    """Return one of the spans of ``split`` as OTLP's JSON has it, its attributes by name.

    Raises:
        ValueError: it is none.
    """
    span = Span()
    if kind == JSON and len(memoryview(raw)) > MAX_JSON_SPAN_BYTES:
        raise ValueError(f"is over {MAX_JSON_SPAN_BYTES} bytes of JSON: send protobuf")
    try:
        if kind == JSON:
            json_format.Parse(bytes(raw), span, ignore_unknown_fields=True)
        else:
            span.MergeFromString(raw)
    except (DecodeError, json_format.ParseError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"is no span{_place(error)}") from None
    return {
        "traceId": _id(span.trace_id, kind),
        "spanId": _id(span.span_id, kind),
        "startTimeUnixNano": str(span.start_time_unix_nano),
        "endTimeUnixNano": span.end_time_unix_nano,
        "attributes": _values(span.attributes),
        "events": [
            {
                "name": it.name,
                "attributes": _values(it.attributes),
                "droppedAttributesCount": it.dropped_attributes_count,
            }
            for it in span.events
        ],
        "droppedAttributesCount": span.dropped_attributes_count,
        "droppedEventsCount": span.dropped_events_count,
    }


def _place(error: Exception) -> str:
    """Return where in a span's JSON an error is: its own words quote what stands there."""
    fields = re.findall(r"Failed to parse (\w+) field", str(error))
    return f": {'.'.join(fields)} does not fit" if fields else ""


def _id(given: bytes, kind: str) -> str:
    """Return an id in hexadecimal digits: OTLP's JSON has those where protobuf's has base64.

    One that OTLP calls invalid is none: only zeros, as where nothing is sampled, or far too long.
    """
    if len(given) > MAX_ID_BYTES or given in NO_IDS:
        return ""
    return base64.b64encode(given).decode().lower() if kind == JSON else given.hex()


def _values(attributes: Iterable[KeyValue]) -> dict[str, Any]:
    return {it.key: _value(it.value) for it in attributes}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(it) for it in value.array_value.values]
    if kind == "kvlist_value":
        return _values(value.kvlist_value.values)
    if kind == "bytes_value":
        return base64.b64encode(value.bytes_value).decode()
    return None if kind is None else getattr(value, kind)


def encode_answer(kind: str, rejected: int, message: str) -> bytes:
    """Return the ``ExportTraceServiceResponse``, with what was not taken, or only a warning."""
    partial = ExportTracePartialSuccess(rejected_spans=rejected, error_message=message)
    answer = ExportTraceServiceResponse(partial_success=partial if rejected or message else None)
    if kind == JSON:
        text: str = json_format.MessageToJson(answer, indent=None)
        return text.encode()
    body: bytes = answer.SerializeToString()
    return body


def encode_status(kind: str, message: str) -> bytes:
    """Return the ``google.rpc.Status`` that OTLP wants in the body of an error."""
    if kind == JSON:
        return msgspec.json.encode({"message": message})
    # On the wire, Status has its message in the same field.
    body: bytes = ExportTracePartialSuccess(error_message=message).SerializeToString()
    return body
