"""The training, in this process, of a tiny model."""

import pytest

from mindscore._util.errors import TrainError
from mindscore.training.lora.job import Job, Recipe, Sample, pack

# Of PEFT, about its own use of transformers.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")


@pytest.fixture
def training(tiny_model):
    from mindscore.training.lora.training import Training

    def training(samples, start="", **recipe):
        return Training(Job(tiny_model, samples, Recipe(**recipe), str(start)))

    return training


def trained(training, samples, **options):
    """The losses of the epochs, and the training that made them."""
    losses, it = [], training(samples, **options)
    it.run(lambda progress: losses.append(progress.loss))
    return losses, it


def weights(folder):
    from safetensors.torch import load_file

    return load_file(folder / "adapter_model.safetensors")


def total_loss(training, packed):
    from mindscore.training.lora.training import mean_loss

    logits = training.logits(packed.ids, packed.rows)
    return mean_loss(packed, logits) * len(packed.rows)


def gradients(training):
    return [it.grad.clone() for it in training.weights]


def test_packed_samples_have_the_losses_and_gradients_of_each_alone(training, samples):
    import torch

    it = training(samples)
    # As after some steps: with its first weights, half the gradients are nought.
    with torch.no_grad():
        for weight in it.weights:
            weight.normal_(std=0.1)
    together = sum(total_loss(it, packed) for packed in pack(samples))
    together.backward()
    expected = gradients(it)
    for weight in it.weights:
        weight.grad = None
    alone = sum(total_loss(it, packed) for sample in samples for packed in pack([sample]))
    alone.backward()
    assert len(pack(samples)) == 2
    assert together.item() == pytest.approx(alone.item(), abs=1e-4)
    for one, other in zip(expected, gradients(it), strict=True):
        assert one.abs().max() > 0
        assert torch.allclose(one, other, atol=1e-4)


def test_it_learns_until_the_loss_is_what_was_asked_for(training, samples):
    losses, _ = trained(training, samples, learning_rate=0.02, target=0.25, epochs=300)
    assert losses[-1] < losses[0] / 4 <= min(losses[:-1])


def test_it_ends_after_the_epochs_that_it_may_take(training, samples):
    losses, _ = trained(training, samples, epochs=3)
    assert len(losses) == 3


def test_the_first_loss_is_the_mean_of_what_the_model_makes_of_each_token(tiny_model, training):
    import torch
    from transformers import AutoModelForCausalLM

    context, said = (4, 5, 6, 7), (8, 9, 10)
    losses, _ = trained(training, [Sample(context, said)], epochs=1)
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    ids = torch.tensor([[*context, *said]])
    # The library's own way to leave a context out.
    labels = torch.tensor([[-100] * len(context) + list(said)])
    assert losses[0] == pytest.approx(model(input_ids=ids, labels=labels).loss.item(), abs=1e-4)


def test_peft_loads_what_is_saved(tiny_model, training, samples, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    _, it = trained(training, samples, learning_rate=0.02, epochs=5)
    it.save(tmp_path / "adapter")
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    loaded = PeftModel.from_pretrained(base, tmp_path / "adapter")
    import torch

    [packed, _] = pack(samples)
    said = loaded(input_ids=torch.tensor([packed.ids])).logits[0, list(packed.rows)]
    assert torch.allclose(said, it.logits(packed.ids, packed.rows), atol=1e-4)
    with loaded.disable_adapter():
        before = loaded(input_ids=torch.tensor([packed.ids])).logits[0, list(packed.rows)]
    assert not torch.allclose(said, before, atol=1e-2)
    assert [it.name for it in tmp_path.iterdir()] == ["adapter"]


def test_the_same_job_comes_out_the_same_to_the_bit(training, samples, tmp_path):
    for name in ("one", "other"):
        trained(training, samples, learning_rate=0.02, epochs=4)[1].save(tmp_path / name)
    trained(training, samples, learning_rate=0.02, epochs=4, seed=1)[1].save(tmp_path / "seeded")
    one, other, seeded = (weights(tmp_path / it) for it in ("one", "other", "seeded"))
    assert one.keys() == other.keys()
    assert all((one[name] == other[name]).all() for name in one)
    assert any((one[name] != seeded[name]).any() for name in one)


def test_what_is_not_taught_is_held_to_what_was_said_before(training, samples):
    import torch

    def moved(keep):
        """How far what is said of the other tokens has moved, by the whole distributions."""
        recipe = {"learning_rate": 0.02, "epochs": 20, "target": 0.0}
        _, it = trained(training, samples, keep=keep, **recipe)
        before, [packed, _] = training(samples), pack(samples)
        rows = [row for row in range(len(packed.ids) - 1) if row not in packed.rows]
        with torch.no_grad():
            one, other = (each.logits(packed.ids, rows).log_softmax(1) for each in (before, it))
        return (one.exp() * (one - other)).sum(1).mean().item()

    assert moved(keep=20.0) < moved(keep=0.0) / 5


def test_it_goes_on_from_an_adapter(training, samples, tmp_path):
    losses, first = trained(training, samples, learning_rate=0.02, keep=0.0, epochs=20)
    first.save(tmp_path / "first")
    went_on, _ = trained(training, samples, start=tmp_path / "first", epochs=1)
    assert went_on[0] < losses[0] / 2


def test_what_an_adapter_has_learnt_is_not_unlearnt_by_the_next(training, tmp_path):
    """The second sample's context is the whole first sample."""
    first, second = Sample((5, 6, 7), (8, 9, 10)), Sample((5, 6, 7, 8, 9, 10, 11), (12, 13))
    strict = {"learning_rate": 0.02, "keep": 50.0, "epochs": 60, "target": 0.1}
    _, one = trained(training, [first], **strict)
    one.save(tmp_path / "first")
    [learnt] = pack([first])
    before, after = (total_loss(it, learnt).item() for it in (training([first]), one))
    assert after < before / 2
    _, other = trained(training, [second], start=tmp_path / "first", **strict)
    assert total_loss(other, learnt).item() < before / 2


def test_the_losses_before_and_after_are_those_of_the_same_tokens(training, samples, tmp_path):
    recipe = {"learning_rate": 0.02, "keep": 0.0, "epochs": 5, "target": 0.0}
    first = training(samples, **recipe)
    found = first.measured(lambda: first.run(lambda _: None))
    tokens = sum(len(it.continuation_ids) for it in samples)
    expected = sum(total_loss(training(samples), it).item() for it in pack(samples)) / tokens
    assert found.samples.before == pytest.approx(expected, abs=1e-5)
    assert found.samples.after < found.samples.before
    assert found.base == found.unrelated.before != found.unrelated.after
    first.save(tmp_path / "first")
    again = training(samples, start=tmp_path / "first", **recipe).measured(lambda: None)
    assert again.samples.before == again.samples.after == pytest.approx(found.samples.after)
    assert again.unrelated.before == pytest.approx(found.unrelated.after, abs=1e-5)
    assert again.base == pytest.approx(found.base, abs=1e-5)


def test_a_pickled_adapter_is_not_gone_on_from(training, samples, tmp_path):
    training(samples).save(tmp_path / "first")
    (tmp_path / "first/adapter_model.safetensors").rename(tmp_path / "first/adapter_model.bin")
    with pytest.raises(ValueError, match=r"it has no adapter_model\.safetensors"):
        training(samples, start=tmp_path / "first")


def test_a_loss_that_is_no_number_ends_it(training, samples):
    with pytest.raises(TrainError, match="the loss is nan in epoch"):
        trained(training, samples, learning_rate=1e30, keep=0.0, epochs=9, target=0.0)
