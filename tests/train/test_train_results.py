"""Evaluation, and what TensorBoard makes of a run."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.context import RequestContext
from tensorboard.plugins import base_plugin
from tensorboard.plugins.hparams import api_pb2, backend_context, get_experiment, list_session_groups

from train import checkpoint, trainer
from train.config import Config, LmConfig
from train.errors import TrainError
from train.evaluate import evaluate, file_name, main
from train.gpt import GPT
from train.lm import LmTask
from train.signals import Stop
from train.state import Run

Make = Callable[..., LmConfig]
State = Callable[[Config], dict[str, Any]]


@pytest.fixture
def finished(tiny: Make) -> LmConfig:
    config = tiny()
    assert trainer.train(config, Stop()) == 0
    return config


def scalars(directory: Path) -> dict[str, list[tuple[int, float]]]:
    """Return the scalars but those of time and use."""
    events = EventAccumulator(str(directory)).Reload()
    tags = [tag for tag in events.Tags()["scalars"] if not tag.startswith("use/")]
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}


def metrics(directory: Path) -> list[list[str]]:
    return [line.split(",") for line in (directory / "metrics.csv").read_text().splitlines()[1:]]


def model_of(config: LmConfig, state: dict[str, Any]) -> GPT:
    model = LmTask(config).build()
    model.load_state_dict(state["model"])
    return model


def test_evaluation_is_the_mean_over_every_byte_of_the_split(
    finished: LmConfig, ended_state: State, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(finished.out)]) == 0
    test = LmTask(finished).tokens["test"].long()
    model = model_of(finished, ended_state(finished))
    # Window by window, and from the logits: another way to the same number.
    total, n_bytes = 0.0, 0
    for start in range(0, len(test) - finished.context, finished.context):
        window = test[start : start + finished.context + 1]
        with torch.no_grad():
            probabilities = model(window[None, :-1])[0].softmax(-1)
        total -= float(probabilities[torch.arange(finished.context), window[1:]].log().sum())
        n_bytes += finished.context
    written = json.loads((finished.out / "eval_test.json").read_text())
    assert written["loss"] == pytest.approx(total / n_bytes, rel=1e-5)
    assert (written["split"], written["step"]) == ("test", 40)
    assert capsys.readouterr().out == f"split=test loss={written['loss']:.4f} step=40\n"


def test_averages_and_the_best_checkpoint_are_evaluated(tiny: Make) -> None:
    config = tiny(averages=["ema_0.9"], best=True, eval_examples=0)
    assert trainer.train(config, Stop()) == 0
    last = {row[0]: row for row in metrics(config.out)}["40"]
    found = evaluate(config.out, "val[:100%]")
    assert found.keys() == {"split", "loss", "ema_0.9_loss", "step"}
    assert found["loss"] == pytest.approx(float(last[3]), abs=2e-6)
    assert found["ema_0.9_loss"] == pytest.approx(float(last[4]), abs=2e-6)
    assert json.loads((config.out / "eval_val_-100%.json").read_text()) == found
    assert evaluate(config.out, "val", best=True)["step"] == 40


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_evaluating_again_gives_the_same(finished: LmConfig, split: str) -> None:
    assert evaluate(finished.out, split) == evaluate(finished.out, split)
    assert len(scalars(finished.out)[f"loss/eval_{split}"]) == 1


def test_each_split_has_its_own_file() -> None:
    splits = ["val", "train[:1%]", "train[1%:]", "train[:1]", "train[1:]", "train[1:2]", "train[-1:2]", "train[:1]+val"]
    names = [file_name(split) for split in splits]
    assert names[:3] == ["val", "train_-1%", "train_1%-"]
    assert len({*names}) == len(splits)


def test_evaluation_needs_no_schedule_file(tiny: Make, tmp_path: Path) -> None:
    path = tmp_path / "lrs.npy"
    np.save(path, np.full(40, 0.01))
    config = tiny(schedule=str(path))
    assert trainer.train(config, Stop()) == 0
    path.unlink()
    assert evaluate(config.out, "test")["step"] == 40


def test_what_cannot_be_evaluated_is_told(
    finished: LmConfig, tiny: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(TrainError, match=r"no checkpoint in .*absent"):
        evaluate(tmp_path / "absent", "test")
    stop, config = Stop(), tiny("half")
    stop.receive(signal.SIGTERM, None)
    assert trainer.train(config, stop) == 75
    with pytest.raises(TrainError, match="is at step 1 of 40: finish it first"):
        evaluate(config.out, "test")
    assert not (config.out / "eval_test.json").exists()
    with pytest.raises(TrainError, match="no best checkpoint in"):
        evaluate(finished.out, "test", best=True)
    checkpoint_file = finished.out / checkpoint.DIRECTORY / "40.pt"
    checkpoint_file.write_bytes(checkpoint_file.read_bytes()[:-5000])
    capsys.readouterr()
    for words in ([str(finished.out)], [str(finished.out), "--split", "tset"], [], ["x", "--threads", "-1"]):
        with pytest.raises(SystemExit) as ending:
            main(words)
        assert ending.value.code == 2
        errors = capsys.readouterr().err
        assert errors.startswith("train.evaluate: error: ")
        assert errors.count("\n") == 1


def test_a_full_disk_is_told_by_an_evaluation(
    finished: LmConfig, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "there/eval_test.json")

    monkeypatch.setattr("train.evaluate.write_json", full)
    with pytest.raises(SystemExit) as ending:
        main([str(finished.out)])
    assert ending.value.code == 2
    assert capsys.readouterr().err == "train.evaluate: error: there/eval_test.json: No space left on device\n"


def test_events_hold_the_numbers_of_metrics_csv(finished: LmConfig) -> None:
    assert len(list(finished.out.glob("events.out.tfevents.*"))) == 1
    found = scalars(finished.out)
    table = metrics(finished.out)
    assert found.keys() == {"loss/train", "loss/val", "lr", "loss/final_val"}
    for tag, column in (("lr", 1), ("loss/train", 2), ("loss/val", 3)):
        expected = [(int(row[0]), float(row[column])) for row in table if row[column]]
        assert [step for step, _ in found[tag]] == [step for step, _ in expected]
        assert [value for _, value in found[tag]] == pytest.approx([value for _, value in expected], rel=1e-6)
    assert found["loss/final_val"] == [found["loss/val"][-1]]


def test_a_resumed_run_has_the_events_of_an_undisturbed_one(
    tiny: Make, finished: LmConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny("resumed")
    own = Run.train_step

    def failing(run: Run, parts: Any) -> None:
        own(run, parts)
        if run.step == 28:
            raise RuntimeError("fault")

    monkeypatch.setattr(Run, "train_step", failing)
    with pytest.raises(RuntimeError, match="fault"):
        trainer.train(config, Stop())
    assert [step for step, _ in scalars(config.out)["loss/train"]][-1] == 25
    monkeypatch.undo()
    # Event files are read in the order of the seconds in their names.
    for path in config.out.glob("events.out.tfevents.*"):
        seconds = path.name.split(".")[3]
        path.rename(path.with_name(path.name.replace(seconds, f"{int(seconds) - 1:010}")))
    assert trainer.train(config, Stop()) == 0
    assert scalars(config.out) == scalars(finished.out)


def test_a_run_that_begins_anew_removes_its_own_outputs_only(tiny: Make, finished: LmConfig) -> None:
    evaluate(finished.out, "test")
    (finished.out / checkpoint.DIRECTORY / "40.pt").unlink()
    foreign = finished.out / "events.out.tfevents.1.host.1.0"
    foreign.write_bytes(b"")
    assert trainer.train(tiny(seed=1), Stop()) == 0
    assert foreign.exists()
    assert not (finished.out / "eval_test.json").exists()
    foreign.unlink()
    assert len(list(finished.out.glob("events.out.tfevents.*"))) == 1


def session_groups(directory: Path) -> tuple[set[str], dict[str, Any]]:
    """Ask TensorBoard's HParams backend for its metrics and its table."""
    guidance = {"scalars": 1000, "hparams": 0}
    multiplexer = plugin_event_multiplexer.EventMultiplexer(tensor_size_guidance=guidance)
    multiplexer.AddRunsFromDirectory(str(directory)).Reload()
    provider = data_provider.MultiplexerDataProvider(multiplexer, str(directory))
    backend = backend_context.Context(base_plugin.TBContext(data_provider=provider))
    asked = api_pb2.GetExperimentRequest()
    experiment = get_experiment.Handler(RequestContext(), backend, "", asked).run()
    request = api_pb2.ListSessionGroupsRequest(slice_size=100, allowed_statuses=[0, 1, 2, 3])
    response = list_session_groups.Handler(RequestContext(), backend, "", request).run()
    names = {info.name.tag for info in experiment.metric_infos}
    return names, {group.name: group for group in response.session_groups}


def test_a_run_that_was_stopped_at_once_keeps_its_row_in_the_table(tiny: Make, tmp_path: Path) -> None:
    config, stop = tiny("sweep/one"), Stop()
    stop.receive(signal.SIGTERM, None)
    assert trainer.train(config, stop) == 75
    assert trainer.train(config, Stop()) == 0
    _, groups = session_groups(tmp_path / "sweep")
    assert groups["one"].hparams["lr"].number_value == 0.01
    assert groups["one"].sessions[0].status == api_pb2.STATUS_SUCCESS


def test_the_hparams_table_shows_parameters_and_final_metrics(tiny: Make, tmp_path: Path) -> None:
    tests = {}
    runs: dict[str, dict[str, Any]] = {"one": {"lr": 0.01}, "two": {"lr": 0.02, "schedule": "cosine"}}
    for name, flags in runs.items():
        assert trainer.train(tiny(f"sweep/{name}", **flags), Stop()) == 0
        tests[name] = evaluate(tmp_path / "sweep" / name, "test")["loss"]
    assert trainer.train(tiny("sweep/bad", lr=1e38, clip=0.0), Stop()) == 76

    names, groups = session_groups(tmp_path / "sweep")
    assert names >= {"loss/final_val", "loss/eval_test"}
    assert groups.keys() == {"one", "two", "bad"}
    for name, lr, schedule in (("one", 0.01, "wsd"), ("two", 0.02, "cosine")):
        group = groups[name]
        (session,) = group.sessions
        assert session.status == api_pb2.STATUS_SUCCESS
        assert group.hparams["lr"].number_value == lr
        assert group.hparams["schedule"].string_value == schedule
        assert {"seed", "width", "steps", "beta2", "n_params"} <= group.hparams.keys()
        values = {value.name.tag: value.value for value in group.metric_values}
        assert values["loss/eval_test"] == pytest.approx(tests[name], rel=1e-6)
        last = metrics(tmp_path / "sweep" / name)[-1]
        assert values["loss/final_val"] == pytest.approx(float(last[3]), abs=1e-6)
    assert groups["bad"].sessions[0].status == api_pb2.STATUS_FAILURE
