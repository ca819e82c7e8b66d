"""Evidence in files: written, and read back, in each format."""

import csv
import json
import os
import stat
import sys
from dataclasses import asdict, replace

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mindscore._util.errors import UsageError
from mindscore.cli.transfer import EvidenceTable
from mindscore.store import (
    COLUMNS,
    ConversationFacts,
    Evidence,
    MemoryText,
    Pass,
    columns_of,
    rows_of,
)
from mindscore.store import export as export_module
from mindscore.store.evidence_files import holds_evidence, read_evidence, table_of
from mindscore.store.export import export_evidence
from mindscore.store.file_tables import FILE_TABLES

ONE = Evidence("c", "m", "k", "t", "full", "n", 3, 0.1 + 0.2, -5e-324, 2.5, 0.1, 7, 1.5e9, 10.0)
BARE = replace(ONE, hold=None, noise=None, tokens=None, responded_at=None)
AWKWARD = [
    replace(ONE, key=key, node_id=f"n{number}")
    for number, key in enumerate(['a "quote", a comma', "two\nlines\r\n", "é😀", "=1+1", "", " "])
]


@pytest.fixture
def rows():
    return sorted([ONE, replace(BARE, mode="incremental"), *AWKWARD], key=order)


def order(row):
    return row.model, row.conversation, row.key, row.text_hash, row.node_id, row.mode


async def add_columns(store, file):
    for batch in read_evidence(file):
        await store.add_columns(batch)
    return [row async for batch in store.evidence() for row in rows_of(batch)]


@pytest.mark.parametrize("file_format", ["parquet", "csv", "jsonl"])
async def test_what_is_exported_is_imported_bit_for_bit_and_once(
    store, file_format, rows, tmp_path
):
    await store().add_evidence(rows)
    file = tmp_path / "evidence"
    assert await export_evidence(store(), file, file_format) == len(rows)
    assert holds_evidence(file)
    for _ in range(2):
        found = await add_columns(store("other"), file)
        assert [repr(it) for it in found] == [repr(it) for it in rows]


TEXT = MemoryText("k", "t", 'a "quote", a comma\r\nand a line é😀', 7, 1.5e9, 0.1 + 2e9)
FACTS = ConversationFacts("c", "talks/c.jsonl", "what, do I\ndrink?", 2, 3, 90, 1.5e9, None, 2e9)
DONE = Pass("m", "c", "score-full", "a/b/2/c/0.0", 2e9, 0.1 + 0.2, 3, 120, None, "it, broke")
ROWS = {
    "evidence": [ONE, replace(BARE, node_id="o")],
    "texts": [TEXT, replace(TEXT, text_hash="u", text=None, tokens=None)],
    "conversations": [FACTS, replace(FACTS, conversation="d", title="hi", begun_at=None)],
    "passes": [DONE, replace(DONE, conversation="d", computed_tokens=60, error=None)],
}


async def fill(store):
    await store.add_evidence(ROWS["evidence"])
    await store.record_texts(ROWS["texts"])
    for facts in ROWS["conversations"]:
        await store.record_conversation(facts)
    for done in ROWS["passes"]:
        await store.record_pass(done)


async def contents(store, table):
    batches = table.batches(store, None, 1000)
    return [row async for batch in batches for row in table.rows_of(batch)]


@pytest.mark.parametrize("file_format", ["parquet", "csv", "jsonl"])
@pytest.mark.parametrize("name", FILE_TABLES)
async def test_every_table_is_exported_and_imported_bit_for_bit(store, tmp_path, name, file_format):
    table, file = FILE_TABLES[name], tmp_path / "rows"
    await fill(store(days=0))
    assert await contents(store(), table) == ROWS[name]
    assert await export_evidence(store(), file, file_format, table=table) == 2
    assert table_of(file) is table
    for _ in range(2):
        for batch in read_evidence(file, table):
            await table.add(store("other", days=0), batch)
        found = await contents(store("other"), table)
        assert [repr(it) for it in found] == [repr(it) for it in ROWS[name]]
    others = [it for it in FILE_TABLES.values() if it is not table]
    assert [await contents(store("other"), it) for it in others] == [[]] * 3


@pytest.mark.parametrize("file_format", ["parquet", "csv"])
@pytest.mark.parametrize("name", FILE_TABLES)
async def test_every_table_is_imported_as_pandas_writes_it(store, tmp_path, name, file_format):
    table = FILE_TABLES[name]
    await fill(store(days=0))
    await export_evidence(store(), tmp_path / "one", file_format, table=table)
    if file_format == "csv":
        pd.read_csv(tmp_path / "one").to_csv(tmp_path / "other")
    else:
        pd.read_parquet(tmp_path / "one").to_parquet(tmp_path / "other")
    assert table_of(tmp_path / "other") is table
    for batch in read_evidence(tmp_path / "other", table):
        await table.add(store("other", days=0), batch)
    assert await contents(store("other"), table) == ROWS[name]


@pytest.mark.parametrize("name", ["evidence", "conversations", "passes"])
async def test_of_two_rows_about_the_same_the_later_one_stays(store, name):
    table = FILE_TABLES[name]
    one = ROWS[name][0]
    change = {"conversations": "responses", "passes": "calls", "evidence": "entry_idx"}[name]
    later = replace(one, **{table.when: getattr(one, table.when) + 1, change: 5})
    for row in (later, one, later):
        await table.add(store(days=0), {it: [getattr(row, it)] for it in table.columns})
        assert await contents(store(), table) == [later]


async def test_a_long_text_is_read_and_a_byte_order_mark_is_not(store, tmp_path):
    table = FILE_TABLES["texts"]
    await store(days=0).record_texts([replace(TEXT, text="long " * 60_000)])
    await export_evidence(store(), tmp_path / "e", "csv", table=table)
    (tmp_path / "marked").write_bytes(b"\xef\xbb\xbf" + (tmp_path / "e").read_bytes())
    for file in ("e", "marked"):
        assert table_of(tmp_path / file) is table
        [batch] = read_evidence(tmp_path / file, table)
        assert len(batch["text"][0]) == 300_000


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (("signed", "sgn"), "has no column 'signed': it is no evidence"),
        ((",full,", ",other,"), "a row up to line 2 is no evidence: .*other"),
        ((",full,n,3,", ",full,n,three,"), "a row up to line 2 is no evidence: .*int"),
        ((",full,n,3,", ",full,n,"), "a row up to line 2 has 13 fields, not 14"),
        (("c,m,k", "\udcff,m,k"), "is no CSV that can be read"),
    ],
)
async def test_a_row_of_csv_that_is_no_evidence_is_named(store, tmp_path, changed, said):
    await store().add_evidence([ONE])
    file = tmp_path / "e"
    await export_evidence(store(), file, "csv")
    text = file.read_text(encoding="utf-8")
    assert changed[0] in text
    file.write_bytes(text.replace(*changed).encode("utf-8", "surrogateescape"))
    assert holds_evidence(file)
    with pytest.raises(UsageError, match=said):
        list(read_evidence(file))


def test_the_command_names_the_tables_that_there_are():
    assert [it.value for it in EvidenceTable] == list(FILE_TABLES)


async def test_csv_has_a_line_of_names_and_nothing_for_what_is_not_known(store, rows, tmp_path):
    await store().add_evidence(rows)
    assert await export_evidence(store(), tmp_path / "e.csv", "csv") == len(rows)
    with (tmp_path / "e.csv").open(encoding="utf-8", newline="") as stream:
        found = list(csv.DictReader(stream))
    assert tuple(found[0]) == COLUMNS
    expected = [{name: "" if it is None else str(it) for name, it in asdict(row).items()}
                for row in rows]  # fmt: skip
    assert found == expected


async def test_json_lines_are_a_row_each(store, rows, tmp_path):
    await store().add_evidence(rows)
    await export_evidence(store(), tmp_path / "e.jsonl", "jsonl")
    lines = (tmp_path / "e.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(it) for it in lines] == [asdict(it) for it in rows]


async def test_parquet_is_of_the_types_that_are_documented(store, rows, tmp_path):
    await store().add_evidence(rows)
    await export_evidence(store(), tmp_path / "e.parquet", "parquet")
    table = pq.read_table(tmp_path / "e.parquet")
    types = {field.name: (str(field.type), field.nullable) for field in table.schema}
    assert types == {
        **dict.fromkeys(("conversation", "model", "key", "text_hash"), ("string", False)),
        **dict.fromkeys(("mode", "node_id"), ("string", False)),
        "entry_idx": ("int64", False),
        **dict.fromkeys(("divergence", "signed", "scored_at"), ("double", False)),
        **dict.fromkeys(("hold", "noise", "responded_at"), ("double", True)),
        "tokens": ("int64", True),
    }
    assert table.to_pylist() == [asdict(it) for it in rows]


async def test_what_pandas_made_of_a_file_is_imported(store, tmp_path):
    rows = [ONE, replace(BARE, mode="incremental")]
    await store().add_evidence(rows)
    await export_evidence(store(), tmp_path / "one", "parquet")
    pd.read_parquet(tmp_path / "one").to_parquet(tmp_path / "other")
    assert await add_columns(store("other"), tmp_path / "other") == rows


async def test_a_row_group_is_all_that_is_held(store, tmp_path, monkeypatch):
    monkeypatch.setattr(export_module, "ROW_GROUP_ROWS", 10)
    rows = [replace(ONE, key=f"k{number:03d}") for number in range(35)]
    await store().add_evidence(rows)
    await export_evidence(store(), tmp_path / "e", "parquet")
    opened = pq.ParquetFile(tmp_path / "e")
    groups = [opened.metadata.row_group(it).num_rows for it in range(opened.num_row_groups)]
    assert sum(groups) == 35
    assert max(groups) <= 10
    assert [row for batch in read_evidence(tmp_path / "e") for row in rows_of(batch)] == rows


async def test_only_the_model_that_is_asked_for_is_exported(store, tmp_path):
    await store().add_evidence([ONE, replace(ONE, model="other")])
    assert await export_evidence(store(), tmp_path / "e", "jsonl", "other") == 1


@pytest.mark.parametrize("file_format", ["parquet", "csv", "jsonl"])
async def test_no_evidence_is_a_file_of_no_rows(store, file_format, tmp_path):
    assert await export_evidence(store(), tmp_path / "e", file_format) == 0
    assert (tmp_path / "e").exists()


@pytest.mark.parametrize("file_format", ["parquet", "csv", "jsonl"])
async def test_a_file_is_private_and_is_whole_or_the_one_before(
    store, file, file_format, tmp_path, monkeypatch
):
    await store().add_evidence([ONE])
    to = tmp_path / "e"
    to.write_text("before")
    to.chmod(0o644)

    def fail(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", fail)
        with pytest.raises(UsageError, match="No space left"):
            await export_evidence(store(), to, file_format)
    assert to.read_text() == "before"
    assert [it for it in tmp_path.iterdir() if it.is_file()] == [to]
    await export_evidence(store(), to, file_format)
    assert stat.S_IMODE(to.stat().st_mode) == 0o600


async def test_what_is_no_regular_file_is_refused(store, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path, tmp_path / "pipe", tmp_path / "missing" / "e"):
        with pytest.raises(UsageError, match="cannot be written"):
            await export_evidence(store(), place, "csv")


async def test_without_pyarrow_only_parquet_fails_and_names_the_extra(store, tmp_path, monkeypatch):
    await store().add_evidence([ONE])
    await export_evidence(store(), tmp_path / "there", "parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for file_format in ("csv", "jsonl"):
        assert await export_evidence(store(), tmp_path / "e", file_format) == 1
    with pytest.raises(UsageError, match=r"mindscore\[archive\]"):
        await export_evidence(store(), tmp_path / "e", "parquet")
    with pytest.raises(UsageError, match=r"mindscore\[archive\]"):
        list(read_evidence(tmp_path / "there"))


@pytest.mark.parametrize(
    "line",
    [
        b"{}",
        b'{"key": "k", "node_id": "n", "mode": "full"}',
        json.dumps(asdict(ONE) | {"mode": "other"}).encode(),
        json.dumps(asdict(ONE) | {"signed": None}).encode(),
        json.dumps(asdict(ONE) | {"tokens": 1.5}).encode(),
        b"\xff",
        b"[" * 100_000,
    ],
)
def test_a_line_that_is_no_evidence_is_named(line, tmp_path):
    file = tmp_path / "e"
    file.write_bytes(json.dumps(asdict(ONE)).encode() + b"\n\n" + line + b"\n")
    assert holds_evidence(file)
    with pytest.raises(UsageError, match="line 3 is no evidence"):
        list(read_evidence(file))


def test_a_parquet_file_that_is_no_evidence_is_named(tmp_path):
    whole = columns_of([ONE])
    cases = {
        "no column 'signed'": pa.table({k: v for k, v in whole.items() if k != "signed"}),
        "a row is no evidence": pa.table({**whole, "mode": ["other"]}),
        "a row is no evidence:": pa.table({**whole, "entry_idx": ["3"]}),
    }
    for said, table in cases.items():
        pq.write_table(table, tmp_path / "e")
        with pytest.raises(UsageError, match=said):
            list(read_evidence(tmp_path / "e"))
    (tmp_path / "e").write_bytes(b"PAR1 and no more")
    with pytest.raises(UsageError, match="no Parquet file that can be read"):
        list(read_evidence(tmp_path / "e"))
