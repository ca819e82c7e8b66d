import json

import pytest

from benchmarks.attribution.__main__ import main

TOY = ["--scorer", "toy", "--model", "toy"]
METHODS = ["--methods", "drop,hold,contextcite-64,bm25"]


@pytest.fixture
def run(folder, tmp_path, capsys):
    """Run the command over the invented sets; return exit status, output and progress."""

    def run(*arguments):
        file = ["--json", str(tmp_path / "found.json")]
        status = main([str(folder), *TOY, *METHODS, *file, *arguments])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def test_every_method_is_reported_on_every_set(run, tmp_path):
    status, out, _ = run("--questions", "2")
    assert status == 0
    for name, count in (("hotpotqa", 2), ("musique", 2), ("locomo", 3), ("causal-locomo", 2)):
        assert f"{name}, development: {count} answers" in out
    for method in ("drop", "hold", "contextcite-64", "bm25"):
        assert out.count(f"\n{method} ") == 4
    found = json.loads((tmp_path / "found.json").read_text())
    assert {len(it["methods"]["drop"]["values"]) == len(it["keys"]) for it in found["answers"]} == {
        True
    }


def test_published_figures_stand_below_with_their_models(run):
    out = run("--sets", "musique")[1]
    assert "ContextCite-256   Gemma2-2B            54.8     51.8" in out


def test_a_run_goes_on_from_its_file(run):
    _, first, progress = run("--questions", "1")
    assert progress.count("\n") == 4
    _, again, progress = run("--questions", "1")
    assert progress == ""
    assert again == first
    _, _, progress = run("--questions", "2", "--methods", "drop,drop+hold")
    assert sorted(line.split(": ")[1] for line in progress.splitlines()) == [
        "drop+hold",
        "drop+hold",
        "drop+hold",
        "drop+hold",
        *["drop, drop+hold"] * 3,
    ]


def test_random_ablations_are_added_where_an_earlier_run_had_none(run, tmp_path):
    def judged():
        answers = json.loads((tmp_path / "found.json").read_text())["answers"]
        return [it["random"] and len(it["random"]["totals"]) for it in answers]

    _, first, _ = run("--sets", "musique", "--random", "0")
    assert judged() == [None, None]
    _, second, progress = run("--sets", "musique", "--random", "6")
    assert judged() == [6, 6]
    assert progress.count("random ablations") == 2
    assert [line.split()[:7] for line in first.splitlines()] == [
        line.split()[:7] for line in second.splitlines()
    ]
    assert first != second


def test_the_questions_kept_back_are_others(run):
    out = run("--held-out", "--sets", "musique")[1]
    assert "musique, kept back: 1 answers" in out
    assert "development" not in out


def test_another_setup_does_not_belong_into_the_same_file(run):
    run("--sets", "musique")
    status, _, err = run("--sets", "musique", "--words", "5")
    assert status == 1
    assert "measured with words 0, not 5: name another file with --json" in err


def test_the_models_own_answers_are_scored_when_asked_for(run, tmp_path):
    assert run("--sets", "locomo", "--response", "model")[0] == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert [it["tokens"] > 20 for it in found["answers"]] == [True] * 3


def test_what_needs_the_model_itself_is_refused_elsewhere(run):
    status, _, err = run("--methods", "jsd")
    assert status == 1
    assert "need the model: --scorer local" in err


def test_an_unknown_method_is_named(run, capsys):
    with pytest.raises(SystemExit):
        run("--methods", "drop,guess")
    assert "guess: expected some of drop, hold" in capsys.readouterr().err


def test_a_folder_without_the_sets_is_named(run, tmp_path):
    for file in (tmp_path / "sets").iterdir():
        file.unlink()
    status, _, err = run()
    assert status == 1
    assert "no file hotpotqa*.json" in err
