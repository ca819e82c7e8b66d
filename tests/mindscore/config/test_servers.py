"""Another model beside the one of ``[server]``."""

from mindscore.config.servers import other_server

SERVER = {
    "scorer": "vllm",
    "model": "a",
    "adapter": "./old",
    "tokenizer": "./a.json",
    "options": {"kept": 1},
    "b": {"model": "b", "base_url": "http://127.0.0.1:2"},
    "c": {"model": "c"},
}


def test_a_named_table_goes_over_the_keys_of_server():
    found = other_server(SERVER, "b")
    assert found == {
        "scorer": "vllm",
        "model": "b",
        "adapter": "./old",
        "tokenizer": "./a.json",
        "options": {"kept": 1},
        "base_url": "http://127.0.0.1:2",
    }


def test_the_folder_of_an_adapter_is_one_of_the_same_model(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    found = other_server(SERVER, str(tmp_path))
    assert (found["model"], found["adapter"]) == ("a", str(tmp_path))


def test_anything_else_is_a_model_without_the_adapter_and_tokenizer_of_the_first(tmp_path):
    for name in (str(tmp_path), "acme/model"):
        found = other_server(SERVER, name)
        assert (found["model"], found["adapter"], found["tokenizer"]) == (name, "", "")
        assert "b" not in found


def test_a_folder_is_only_what_is_written_as_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "adapter_config.json").write_text("{}")
    assert other_server(SERVER, "mine")["model"] == "mine"
    assert other_server(SERVER, "./mine")["adapter"] == str(tmp_path / "mine")


def test_a_name_comes_before_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "adapter_config.json").write_text("{}")
    assert other_server(SERVER, "b")["model"] == "b"
