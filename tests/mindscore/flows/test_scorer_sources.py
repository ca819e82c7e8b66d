"""What the sources don't do: unpickle, evaluate, trust a model's code, or open a shell."""

import ast
import importlib.util
import json
from contextlib import suppress
from pathlib import Path

import pytest

from mindhooks import ScorerError
from mindscore.scorers.local.scorer import LocalScorer

FILES = sorted(
    file
    for package in ("mindhooks", "mindscore")
    for folder in importlib.util.find_spec(package).submodule_search_locations
    for file in Path(folder).rglob("*.py")
)
MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}
NAMES = {"eval", "exec", "compile", "__import__", "execfile"}
CALLS = {
    "os.system", "os.popen", "torch.load", "tempfile.mktemp", "yaml.load", "yaml.unsafe_load",
    "yaml.full_load", "pandas.read_pickle", "ssl._create_unverified_context",
    "builtins.eval", "builtins.exec",
}  # fmt: skip
UNCHECKED = {"CERT_NONE", "CERT_OPTIONAL", "verify_mode", "check_hostname"}
"""Names of what a TLS context leaves unchecked."""
SAFE = {
    "trust_remote_code": False,
    "shell": False,
    "verify": True,
    "ssl": True,
    "allow_pickle": False,
    "use_safetensors": True,
}
"""Arguments that may have no other value, wherever they stand."""


def dotted(node):
    return ast.unparse(node) if isinstance(node, ast.Attribute | ast.Name) else ""


def offences(tree):
    """What a module does that it must not, each with its line."""
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Import | ast.ImportFrom):
            named = [getattr(node, "module", None) or "", *(it.name for it in node.names)]
            yield from (f"{line}: imports {it}" for it in named if it.split(".")[0] in MODULES)
        if isinstance(node, ast.Call):
            called = dotted(node.func)
            if called in NAMES | CALLS:
                yield f"{line}: calls {called}"
            if called.endswith("np.load") and "allow_pickle" not in {
                it.arg for it in node.keywords
            }:
                yield f"{line}: {called} without allow_pickle"
            if called.endswith("Model.from_pretrained") or called.startswith("AutoModel"):
                given = {it.arg for it in node.keywords}
                if "use_safetensors" not in given and "gguf" not in ast.unparse(node):
                    yield f"{line}: {called} without use_safetensors"
            for argument in node.keywords:
                value = getattr(argument.value, "value", ...)
                if argument.arg in SAFE and value is not SAFE[argument.arg]:
                    yield f"{line}: {argument.arg}={ast.unparse(argument.value)}"
        if isinstance(node, ast.Attribute) and node.attr in UNCHECKED:
            yield f"{line}: {node.attr}"
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                name = getattr(key, "value", None)
                if name in SAFE and getattr(value, "value", ...) is not SAFE[name]:
                    yield f"{line}: {name!r}: {ast.unparse(value)}"


# Rows for Ray's workers are pickled by the command itself, and read only with its seal on them.
SEALED = {"archive/ray_rows.py"}


@pytest.mark.parametrize("file", FILES, ids=lambda it: f"{it.parent.name}/{it.name}")
def test_no_source_runs_what_it_reads(file):
    found = list(offences(ast.parse(file.read_text(encoding="utf-8"))))
    if f"{file.parent.name}/{file.name}" in SEALED:
        assert found
        found = [it for it in found if "pickle" not in it]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from marshal import loads",
        "eval('1')",
        "compile('1', '', 'eval')",
        "os.system('ls')",
        "subprocess.run('ls', shell=True)",
        "torch.load(file)",
        "AutoModelForCausalLM.from_pretrained(x, use_safetensors=True, trust_remote_code=True)",
        "AutoModelForCausalLM.from_pretrained(x, use_safetensors=True, trust_remote_code=given)",
        "AutoModelForCausalLM.from_pretrained(x)",
        "kwargs = {'trust_remote_code': True}",
        "tempfile.mktemp()",
        "session.get(url, ssl=False)",
        "context.check_hostname = False",
        "context.verify_mode = ssl.CERT_NONE",
        "np.load(file)",
        "np.load(file, allow_pickle=True)",
        "yaml.load(text)",
    ],
)
def test_an_offence_is_seen(source):
    assert list(offences(ast.parse(source)))


# -- models ---------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, tokenizer_file):
    """A whole model of two tiny layers, as transformers saves it."""
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path / "model"
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    config = LlamaConfig(vocab_size=400, max_position_embeddings=64, **sizes, **heads)
    LlamaForCausalLM(config).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_file=str(tokenizer_file)).save_pretrained(folder)
    return folder


async def ids(folder):
    scorer = LocalScorer({"model": str(folder)})
    try:
        # The weights are loaded by a score only.
        await scorer.score([])
        return await scorer.tokenize("yes")
    finally:
        await scorer.aclose()


async def test_a_folder_of_safetensors_is_loaded(folder):
    assert await ids(folder)


async def test_pickled_weights_are_refused(folder, tmp_path):
    import torch

    written = tmp_path / "unpickled"

    class Evil:
        def __reduce__(self):
            return Path.touch, (written,)

    (folder / "model.safetensors").unlink()
    torch.save({"x": Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(ScorerError, match=r"server\.model: .* cannot be loaded .*safetensors"):
        await ids(folder)
    assert not written.exists()


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("kind", ["llama", "of_its_own"])
async def test_a_models_own_code_is_never_run(folder, tmp_path, file, kind, monkeypatch):
    written = tmp_path / "imported"
    module = folder / "its_code.py"
    module.write_text(f"import pathlib\npathlib.Path({str(written)!r}).touch()\nclass It: pass\n")
    its = dict.fromkeys(("AutoConfig", "AutoModelForCausalLM"), "its_code.It")
    config = folder / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "model_type": kind}))
    tables = json.loads((folder / file).read_text())
    (folder / file).write_text(
        json.dumps({**tables, "auto_map": {**its, "AutoTokenizer": ["its_code.It"] * 2}})
    )
    # Whoever is asked says yes.
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    # One of a known kind is loaded without it.
    with suppress(ScorerError):
        await ids(folder)
    assert not written.exists()


@pytest.mark.parametrize("broken", [b"", b"{", b"\x00" * 64, b"\xff" * 7])
@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "tokenizer.json"])
async def test_a_broken_folder_is_one_clear_error(folder, file, broken):
    (folder / file).write_bytes(broken)
    with pytest.raises(ScorerError, match=r"^server\.model: .* cannot be loaded .*: .+"):
        await ids(folder)
