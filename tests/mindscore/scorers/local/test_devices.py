"""Devices, number formats and memory: what is chosen on machines that are imitated here."""

import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mindhooks import ScorerError
from mindscore.scorers.local import devices
from mindscore.scorers.local.devices import Compute, cache_bytes, choose, placement
from mindscore.scorers.local.model_files import ModelFiles
from mindscore.scorers.local.scorer import LocalScorer

from ...tiny_model import write_tiny_model

GIB = 2**30
H100 = "NVIDIA H100 80GB HBM3"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, tokenizer_file):
    return str(write_tiny_model(tmp_path_factory.mktemp("tiny"), tokenizer_file))


@pytest.fixture
def machine(monkeypatch):
    """Return a function that makes this machine one with CUDA cards of so many free bytes."""

    def make(*free, bfloat16=True):
        monkeypatch.setattr(devices, "_may_accelerate", lambda: bool(free))
        cuda = SimpleNamespace(
            device_count=lambda: len(free),
            mem_get_info=lambda name: (free[int(name.partition(":")[2])], 80 * GIB),
            get_device_properties=lambda _: SimpleNamespace(name=H100),
            is_bf16_supported=lambda including_emulation: bfloat16 or including_emulation,
        )
        monkeypatch.setattr(torch, "cuda", cuda)
        devices._find.cache_clear()

    yield make
    devices._find.cache_clear()


def files(dtype="bfloat16"):
    return lambda: SimpleNamespace(dtype=dtype)


# -- the device -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_without_an_accelerator_it_is_the_cpu_and_float32_whatever_the_weights_are(machine, dtype):
    machine()
    assert choose("auto", "auto", files(dtype)) == Compute("cpu", "float32")
    assert choose("cpu", "bfloat16", files()) == Compute("cpu", "bfloat16")
    assert str(choose("auto", "auto", files())) == "cpu, float32"


def test_an_accelerator_is_taken_where_there_is_one_and_the_cpu_if_it_is_named(machine):
    machine(70 * GIB, 70 * GIB)
    assert choose("auto", "auto", files()) == Compute("cuda", "bfloat16", H100)
    assert choose("cuda:1", "float32", files()) == Compute("cuda:1", "float32", H100)
    assert choose("cpu", "auto", files()) == Compute("cpu", "float32")
    # Which of two equal ones it is makes no difference to its speed.
    assert str(choose("cuda:1", "auto", files())) == str(choose("cuda:0", "auto", files()))
    assert str(choose("cuda", "auto", files())) == f"cuda ({H100}), bfloat16"


@pytest.mark.parametrize("device", ["cuda:2", "mps", "xpu"])
def test_a_device_that_is_not_there_is_an_error_that_says_which_are(machine, device):
    machine(70 * GIB, 70 * GIB)
    said = rf"^server\.device: there is no '{device}' here; torch .* finds cuda:0, cuda:1, cpu$"
    with pytest.raises(ScorerError, match=said):
        choose(device, "auto", files())


async def test_a_scorer_says_that_its_device_is_absent_when_it_is_asked_to_compute(tiny):
    scorer = LocalScorer({"model": tiny, "device": "cuda:7"})
    assert scorer.device == "cuda:7"
    with pytest.raises(ScorerError, match=r"^server\.device: there is no 'cuda:7' here") as caught:
        await scorer.score([])
    assert not caught.value.arrived
    with pytest.raises(ScorerError, match=r"^server\.device: "):
        await scorer.fingerprint()


def test_the_device_is_known_without_torch_where_there_is_no_accelerator(tiny):
    code = (
        "import sys; from mindscore.scorers.local.scorer import LocalScorer; "
        f"it = LocalScorer({{'model': {tiny!r}}}); "
        "print(it.device, it.noisy, it.reuses_prefixes, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "cpu, float32 False True False\n"


# -- the number format ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "used"),
    [
        ("bfloat16", "bfloat16"),
        ("float16", "float16"),
        ("float32", "float32"),
        ("float64", "float32"),
        ("float8_e4m3fn", "float32"),
    ],
)
def test_on_an_accelerator_the_format_is_the_weights_own_and_none_above_float32(machine, own, used):
    machine(70 * GIB)
    assert choose("auto", "auto", files(own)).dtype == used


def test_a_card_that_only_emulates_bfloat16_has_float32_unless_it_is_asked_for(machine):
    machine(16 * GIB, bfloat16=False)
    assert choose("auto", "auto", files("bfloat16")).dtype == "float32"
    assert choose("auto", "auto", files("float16")).dtype == "float16"
    assert choose("auto", "bfloat16", files("float32")).dtype == "bfloat16"


async def test_a_scorer_on_an_accelerator_says_so_and_measures_its_noise(machine, tiny):
    on_cpu = LocalScorer({"model": tiny})
    of_cpu = await on_cpu.fingerprint()
    machine(70 * GIB)
    half, exact = (LocalScorer({"model": tiny, "dtype": it}) for it in ("float16", "auto"))
    assert (half.noisy, half.device) == (True, f"cuda ({H100}), float16")
    # The tiny model's weights are float32.
    assert (exact.noisy, exact.device) == (False, f"cuda ({H100}), float32")
    # Its numbers are others than the CPU's, and so are those in another format.
    assert len({of_cpu, await half.fingerprint(), await exact.fingerprint()}) == 3
    absent = LocalScorer({"model": "/nowhere"})
    assert (absent.noisy, absent.device) == (True, f"cuda ({H100}), auto")


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ({"dtype": "bfloat16"}, "bfloat16"),
        ({"torch_dtype": "torch.float16"}, "float16"),
        ({"dtype": "float32", "text_config": {"dtype": "bfloat16"}}, "bfloat16"),
        # As the weights are.
        ({}, "float32"),
    ],
)
def test_the_weights_own_format_is_the_declared_one_or_that_of_most(tiny, tmp_path, config, found):
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").symlink_to(Path(tiny) / "model.safetensors")
    assert ModelFiles(str(tmp_path)).dtype == found


def test_the_weights_memory_is_that_of_the_format_they_are_converted_to(tiny):
    from transformers import AutoModelForCausalLM

    expected = sum(it.nbytes for it in AutoModelForCausalLM.from_pretrained(tiny).parameters())
    assert ModelFiles(tiny).nbytes("float32") == expected
    assert ModelFiles(tiny).nbytes("bfloat16") == expected // 2


@pytest.mark.parametrize("torn", [b"", b"{", b"[]", b"\xff" * 9, b"null"])
def test_files_that_tell_nothing_are_no_error(tmp_path, torn):
    (tmp_path / "config.json").write_bytes(torn)
    (tmp_path / "model.safetensors").write_bytes((2**40).to_bytes(8, "little") + torn)
    it = ModelFiles(str(tmp_path))
    assert (it.dtype, it.nbytes("float32"), it.keeps_prefixes) == ("float32", 0, True)


@pytest.mark.slow
def test_the_benchmark_for_gpus_runs_on_any_machine():
    file = Path(__file__).parents[3] / "bench" / "gpu.py"
    command = [sys.executable, str(file), "--tiny"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.count("x the tokens/s of a bare forward") == 2
    assert done.stdout.count("x faster") == 2
    worst = re.findall(r"from a full forward's: (\S+) nats", done.stdout)
    assert len(worst) == 2
    assert all(float(it) < 1e-4 for it in worst)


# -- prefixes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "keeps"),
    [
        ({}, True),
        ({"sliding_window": None}, True),
        ({"sliding_window": 4096}, False),
        ({"sliding_window": 4096, "use_sliding_window": False}, True),
        ({"layer_types": ["full_attention"], "sliding_window": 4096}, True),
        ({"layer_types": ["full_attention", "sliding_attention"]}, False),
        ({"layer_types": ["linear_attention", "full_attention"]}, False),
        ({"text_config": {"layer_types": ["sliding_attention"]}}, False),
    ],
)
def test_layers_that_forget_are_known_before_the_model_is_loaded(tmp_path, config, keeps):
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert LocalScorer({"model": str(tmp_path)}).reuses_prefixes is keeps
    assert LocalScorer({"model": str(tmp_path), "cache_mb": 0}).reuses_prefixes is False


# -- memory ---------------------------------------------------------------------------------------


def test_the_weights_go_to_the_first_card_that_holds_them(machine):
    machine(10 * GIB, 70 * GIB)
    cuda = Compute("cuda", "bfloat16")
    assert placement(cuda, 8 * GIB) == {"device_map": "cuda:0"}
    assert placement(cuda, 16 * GIB) == {"device_map": "cuda:1"}
    assert placement(Compute("cuda:1", "bfloat16"), 8 * GIB) == {"device_map": "cuda:1"}
    assert placement(Compute("cpu", "float32"), 8 * GIB) == {}


def test_where_no_card_holds_them_they_are_spread_and_none_of_them_is_left_to_the_disk(machine):
    machine(40 * GIB, 70 * GIB)
    spread = placement(Compute("cuda", "bfloat16"), 90 * GIB)
    assert spread == {"device_map": "auto", "max_memory": {0: 39 * GIB, 1: 69 * GIB}}


@pytest.mark.parametrize(
    ("device", "said"),
    [
        ("cuda", r"take 120\.0 GiB in bfloat16, and cuda:0, cuda:1 have 108\.0 GiB free"),
        ("cuda:0", r"and cuda:0 has 39\.0 GiB free for them: .* 'cpu'"),
    ],
)
def test_weights_that_fit_nowhere_are_refused_with_what_to_do(machine, device, said):
    machine(40 * GIB, 70 * GIB)
    with pytest.raises(ScorerError, match=rf"^server\.device: .*{said}"):
        placement(Compute(device, "bfloat16"), 120 * GIB)


def test_caches_take_half_of_what_is_free_on_each_card_and_a_number_is_that_number(machine):
    machine(40 * GIB, 60 * GIB)
    assert cache_bytes("auto", ["cuda:0"]) == 20 * GIB
    assert cache_bytes("auto", ["cuda:0", "cuda:1"]) == 40 * GIB
    assert cache_bytes("auto", ["cpu"]) == GIB
    assert cache_bytes(3, ["cuda:0"]) == 3 * 2**20
    assert cache_bytes(0, ["cpu"]) == 0


@pytest.mark.parametrize(
    ("error", "is_it"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublas"), True),
        (MemoryError(), True),
        (RuntimeError("shapes do not fit"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_torchs_errors_for_lack_of_memory_are_known(error, is_it):
    assert devices.is_out_of_memory(error) is is_it


def test_the_cpus_own_error_is_known():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert devices.is_out_of_memory(caught.value)
