import pytest

from benchmarks.attribution.cases import read_cases, take, with_answer


def of(folder, name, words=0):
    return list(read_cases(folder, name, words))


def texts(case):
    said = {}
    for message in case.transcript.messages:
        said |= {part.memory_key: part.text.strip() for part in message.parts if part.memory_key}
        if message.memory_key:
            said[message.memory_key] = message.text
    return said


def test_sentences_of_hotpotqa_are_units_and_annotated_ones_the_support(folder):
    case = of(folder, "hotpotqa")[0]
    (labels,) = case.labels.values()
    assert len(texts(case)) == 6
    assert {texts(case)[key] for key in labels.support} == {
        "Ada has a dog.",
        "The dog of Ada is called Rex.",
    }
    assert case.transcript.conversation[-1].text == "Rex"


def test_paragraphs_of_musique_are_units(folder):
    case = of(folder, "musique")[0]
    (labels,) = case.labels.values()
    assert [texts(case)[key] for key in labels.support] == ["Ada. Ada has a dog, Rex."]
    assert len(case.transcript.keys()) == 3


@pytest.mark.parametrize("name", ["hotpotqa", "musique"])
def test_distractors_are_left_out_beyond_a_number_of_words_and_the_support_never(folder, name):
    whole, short = of(folder, name)[0], of(folder, name, 1)[0]
    assert whole.labels == short.labels
    (labels,) = short.labels.values()
    assert labels.support <= set(short.transcript.keys()) < set(whole.transcript.keys())


def test_observations_of_locomo_are_memories_and_its_evidence_names_their_turns(folder):
    case = of(folder, "locomo")[0]
    asked = [it.text for it in case.transcript.conversation if it.role == "user"]
    assert asked == ["What is Ada's dog called?", "How many cellos?", "What does Dora paint?"]
    support = [{texts(case)[key] for key in it.support} for it in case.labels.values()]
    assert support == [
        {"Ada has a dog called Rex.", "Ada calls her dog Rex."},
        {"Ben plays the cello on Sundays."},
        {"Dora paints old boats."},
    ]


def test_a_question_of_locomo_whose_evidence_is_left_out_is_not_asked(folder):
    case = of(folder, "locomo", words=12)[0]
    assert len(case.transcript.keys()) == 2
    assert [it.text for it in case.transcript.conversation if it.role == "user"] == [
        "What is Ada's dog called?",
        "How many cellos?",
    ]


def test_memories_of_causal_locomo_are_useful_or_harmful(folder):
    case = of(folder, "causal-locomo")[0]
    (labels,) = case.labels.values()
    assert (labels.support, labels.harmful) == (frozenset({"m0"}), frozenset({"m3"}))


def test_every_other_case_is_kept_back(folder):
    cases = of(folder, "musique")
    assert [it.id for it in take(cases, 9, held_out=False)] == ["2hop__0", "2hop__2"]
    assert [it.id for it in take(cases, 9, held_out=True)] == ["2hop__1"]
    assert len(take(cases, 1, held_out=False)) == 1


def test_an_answer_is_replaced_and_its_labels_stay(folder):
    case = of(folder, "locomo")[0]
    changed = with_answer(case, "answer-1", "two")
    assert changed.labels == case.labels
    said = [it.text for it in changed.transcript.conversation if it.role == "assistant"]
    assert said == ["Rex", "two", "boats"]


def test_a_set_that_is_not_there_or_of_another_form_is_named(folder):
    folder.joinpath("musique_3.json").write_text('[{"paragraphs": 3}]')
    with pytest.raises(ValueError, match="musique have another form"):
        of(folder, "musique")
    folder.joinpath("musique_3.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"no file musique\*\.json"):
        of(folder, "musique")
