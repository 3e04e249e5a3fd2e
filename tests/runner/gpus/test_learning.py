"""What the next attempt of a job asks of the GPUs, after what earlier ones showed."""

from dataclasses import replace
from fractions import Fraction

from runner.gpus.learning import Learning
from runner.gpus.packing import Sample
from runner.gpus.placing import WHOLE
from runner.grid import Settings
from runner.memory import Memory
from runner.model import Job, Terms, Trial
from runner.options import StageOptions
from runner.values import Params

LEARNED = Terms(per_gpu=None)
TRIAL = Trial(0, "id", "T_0", "o/T_0", "o/T_0", ("train",), kinds={"train": "train size=tiny"})


def test_terms_become_shares() -> None:
    learning = Learning()
    assert learning.demand(TRIAL, "train", Terms()).share == WHOLE
    assert learning.demand(TRIAL, "train", Terms(per_gpu=3)).share == Fraction(1, 3)
    assert learning.demand(TRIAL, "train", Terms(gpus=2)).gpus == 2


def test_a_kind_is_known_from_its_first_attempt() -> None:
    learning = Learning()
    demand = learning.demand(TRIAL, "train", LEARNED)
    assert (demand.share, demand.need) == (None, None)
    learning.note("train size=tiny", Sample(5_000))
    found = learning.demand(TRIAL, "train", LEARNED).need
    assert found is not None
    assert found.mib == 5_500
    other = replace(TRIAL, kinds={"train": "train size=large"})
    assert learning.demand(other, "train", LEARNED).need is None


def test_out_of_memory_beside_others_runs_again_alone_until_it_is_over() -> None:
    learning, job = Learning(), Job(TRIAL, "train")
    assert learning.was_oom(job, 3, 24_000, [24_000])
    assert learning.demand(TRIAL, "train", LEARNED).share == WHOLE
    learning.forget(job)
    assert learning.demand(TRIAL, "train", LEARNED).share is None


def test_out_of_memory_beside_a_stranger_again_and_again_comes_to_an_end() -> None:
    learning, job = Learning(), Job(TRIAL, "train")
    assert learning.was_oom(job, 2, 24_000, [24_000])
    assert not learning.was_oom(job, 2, 24_000, [24_000])


def test_out_of_memory_alone_needs_a_larger_card() -> None:
    learning, job = Learning(), Job(TRIAL, "train")
    assert not learning.was_oom(job, 1, 24_000, [24_000, 16_000, None])
    assert learning.was_oom(job, 1, 24_000, [24_000, 48_000])
    assert learning.demand(TRIAL, "train", LEARNED).min_total_mib == 24_000


def test_kinds_follow_the_parameters_behind_an_alias() -> None:
    settings = Settings({"size": "tiny"}, {"size": {"tiny": {"layers": 1, "width": 48}}})
    options = {"train": StageOptions(per_gpu=None, vram_by=("size", "batch")), "test": StageOptions()}
    memory = Memory(options, settings)
    params: Params = {"layers": 1, "width": 48, "batch": 8, "lr": 0.1}
    assert memory.kinds(("train", "test"), params) == {"train": "train layers=1 width=48 batch=8"}
    assert memory.kinds(("test",), params) is None


def test_fallbacks_end_when_nothing_is_left_to_lower() -> None:
    memory = Memory({"train": StageOptions(on_oom={"batch": "{batch}/2"})}, Settings({}, {}))
    assert list(memory.fallbacks(("train",), {"batch": 5})) == [("train", [{"batch": 2}, {"batch": 1}])]
    assert list(memory.fallbacks(("test",), {"batch": 5})) == []
