"""Sets of the four forms, with invented content."""

import json
import zipfile
from pathlib import Path

PETS = (
    "Ada has a dog called Rex.",
    "Ben plays the cello on Sundays.",
    "Cleo lives in Oslo.",
    "Dora paints old boats.",
)


def write_sets(folder: Path) -> Path:
    """Write a set of each form: three questions of each, of LoCoMo two conversations."""
    folder.mkdir(exist_ok=True)
    folder.joinpath("hotpotqa_3.json").write_text(json.dumps([_hotpotqa(n) for n in range(3)]))
    folder.joinpath("musique_3.json").write_text(json.dumps([_musique(n) for n in range(3)]))
    causal = "".join(json.dumps(_causal(n)) + "\n" for n in range(3))
    folder.joinpath("causal_locomo_3.jsonl").write_text(causal)
    with zipfile.ZipFile(folder / "locomo2.zip", "w") as archive:
        for name in ("26", "30"):
            archive.writestr(f"data/{name}.json", json.dumps(_locomo()))
    return folder


def _hotpotqa(number: int) -> dict:
    return {
        "question": f"What is the name of Ada's pet, question {number}?",
        "answer": "Rex",
        "supporting_facts": {"title": ["Ada", "Pets"], "sent_id": [1, 0]},
        "context": {
            "title": ["Boats", "Ada", "Pets", "Oslo"],
            "sentences": [
                ["Boats are old.", " They sail far and wide on every sea."],
                ["Ada was born in May.", " Ada has a dog."],
                ["The dog of Ada is called Rex.", ""],
                ["Oslo is cold."],
            ],
        },
    }


def _musique(number: int) -> dict:
    texts = [("Oslo", "It is cold.", False), ("Ada", "Ada has a dog, Rex.", True)]
    texts.append(("Boats", "They sail far.", False))
    return {
        "id": f"2hop__{number}",
        "question": "Which dog has Ada?",
        "answer": "Rex",
        "paragraphs": [
            {"idx": at, "title": title, "paragraph_text": text, "is_supporting": is_in}
            for at, (title, text, is_in) in enumerate(texts)
        ],
    }


def _causal(number: int) -> dict:
    labels = ("useful", "irrelevant", "irrelevant", "harmful")
    texts = (*PETS[:3], "Ada has a cat called Tom.")
    return {
        "example_id": f"qa-{number}",
        "memory_bank": [
            {"memory_id": f"m{at}", "content": text, "label": label}
            for at, (text, label) in enumerate(zip(texts, labels, strict=True))
        ],
        "current_task": {"instruction": "What is the dog of Ada called?"},
        "scoring_criteria": {"expected_answer": "Rex"},
    }


def _locomo() -> dict:
    return {
        "speaker_a": "Ada",
        "session_1_observation": {
            "Ada": [[PETS[0], "D1:1"], [PETS[1], "D1:3; D1:4"]],
            "Ben": [[PETS[2], ["D1:5"]]],
        },
        "session_2_observation": {"Ada": [[PETS[3], "D2:1"], ["Ada calls her dog Rex.", "D1:1"]]},
        "qa": [
            {"question": "What is Ada's dog called?", "answer": "Rex", "evidence": ["D1:1"]}
            | {"category": 4},
            {"question": "How many cellos?", "answer": 1, "evidence": ["D1:4"], "category": 2},
            {"question": "Not observed?", "answer": "no", "evidence": ["D9:9"], "category": 4},
            {"question": "Not to be known?", "evidence": ["D1:5"], "category": 5},
            {"question": "What does Dora paint?", "answer": "boats", "evidence": ["D2:1"]}
            | {"category": 1},
        ],
    }
