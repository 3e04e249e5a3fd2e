"""Texts, tables and images, their splits, and the order in which they are fed."""

from __future__ import annotations

import gzip
import http.server
import math
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers

from train.config import ImageConfig, LmConfig, TabularConfig
from train.download import downloading, fetch
from train.errors import TrainError
from train.evaluation import Evaluation
from train.feed import Feed, Order, Parts
from train.image import ImageTask, mixed_up, shifted
from train.images import read
from train.lm import LmTask, Windows
from train.splits import Part, parse_split, with_test_split
from train.tabular import TabularTask
from train.text import STDLIB_BYTES, load
from train.world import World

CPU = torch.device("cpu")


def test_the_standard_library_is_read_the_same_each_time() -> None:
    first, second = load("stdlib"), load("stdlib")
    assert first == second
    n_bytes = sum(len(text) for text in first.values())
    assert STDLIB_BYTES <= n_bytes < STDLIB_BYTES + 1_000_000
    assert 0.88 < len(first["train"]) / n_bytes < 0.92
    assert 0.03 < len(first["val"]) / n_bytes < 0.07
    assert b"import " in first["val"]


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "gone").symlink_to("nowhere")
    with pytest.raises(TrainError, match=r"cannot read the data .*: .*/gone: No such file"):
        load(str(tmp_path))


def test_splits_are_disjoint_and_cover_the_text(tmp_path: Path) -> None:
    content = bytes(range(256)) * 40
    path = tmp_path / "text"
    path.write_bytes(content)
    text = load(str(path))
    assert text["train"] + text["val"] + text["test"] == content
    assert [len(text[name]) for name in ("train", "val", "test")] == [9216, 512, 512]


def write_documents(root: Path) -> None:
    """100 files of one letter each, in two directories, and files that are not data."""
    for index in range(100):
        path = root / ("a" if index % 2 else "b") / f"{index:03}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes([index]) * (900 + index))
    (root / ".hidden").write_text("~" * 5000)
    (root / "__pycache__").mkdir()
    (root / "__pycache__" / "x").write_text("~" * 5000)


def test_no_file_is_in_two_splits(tmp_path: Path) -> None:
    write_documents(tmp_path / "one")
    letters = [set(part) for part in load(str(tmp_path / "one")).values()]
    assert not letters[0] & letters[1]
    assert not letters[0] & letters[2]
    assert not letters[1] & letters[2]
    assert set.union(*letters) == set(range(100))
    # Shuffled: the splits do not follow the names.
    assert letters[2] != set(range(95, 100))


def test_where_a_directory_lies_does_not_matter(tmp_path: Path) -> None:
    write_documents(tmp_path / "one")
    write_documents(tmp_path / "elsewhere" / "two")
    assert load(str(tmp_path / "one")) == load(str(tmp_path / "elsewhere" / "two"))


def lm(data: Path | str, context: int, **options: str) -> LmTask:
    return LmTask(LmConfig.model_validate({"out": "o", "data": str(data), "context": context, **options}))


def test_a_text_without_split_that_holds_a_window(tmp_path: Path) -> None:
    path = tmp_path / "short"
    path.write_bytes(b"x" * 640)
    lm(path, 31).evaluation("val", 0)
    with pytest.raises(TrainError, match=r"too short: its split val has 32 tokens, .*needs at least 33"):
        lm(path, 32).evaluation("val", 0)
    (tmp_path / "empty").mkdir()
    with pytest.raises(TrainError, match="split 'train': it is empty"):
        lm(tmp_path / "empty", 32)
    with pytest.raises(TrainError, match=r"no data at .*absent.* allowed are 'stdlib'"):
        lm(tmp_path / "absent", 32)


def test_windows_are_spaced_and_predict_no_token_twice(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes(bytes(range(200)) * 20)
    task = lm(path, 10)
    every = task.evaluation("val", 0)
    inputs, targets = every.batch(torch.arange(len(every)))
    assert inputs.shape == targets.shape == (19, 10)
    assert torch.equal(inputs[:, 1:], targets[:, :-1])
    assert targets.flatten().tolist() == task.tokens["val"][1:191].tolist()
    some = task.evaluation("val", 4)
    assert some.starts is not None
    assert some.starts.tolist() == [0, 40, 90, 140]
    anywhere = Windows(task.tokens["val"], None, 10)
    assert len(anywhere) == 190
    assert anywhere.batch(torch.tensor([189]))[1][0, -1] == task.tokens["val"][199]


def test_byte_pairs_shorten_the_text_and_come_back(text_file: Path, tmp_path: Path) -> None:
    task = lm(text_file, 16, tokenizer="bpe:300")
    tokens = task.tokens["val"]
    assert int(tokens.max()) < 300
    assert len(tokens) < task.n_bytes["val"] / 3
    assert task.tokenizer.decode(tokens.tolist()).encode() == load(str(text_file))["val"]
    uniform = math.log(300)
    measured = task.measure(torch.zeros(2, 16, 300), torch.zeros(2, 16, dtype=torch.int64))
    loss, bits = (measured * torch.tensor(task.factors("val"))).tolist()
    assert loss == pytest.approx(2 * uniform)
    assert bits == pytest.approx(2 * uniform / math.log(2) * len(tokens) / task.n_bytes["val"])

    task.write_files(tmp_path)
    again = lm(text_file, 16, tokenizer=str(tmp_path / "tokenizer.json"))
    assert again.sha256 == task.sha256
    with pytest.raises(TrainError, match=r"tokenizer is absent\.json: allowed are bytes, bpe:<size>"):
        lm(text_file, 16, tokenizer="absent.json")


def test_a_tokenizer_of_words(text_file: Path, tmp_path: Path) -> None:
    numbers = {"[UNK]": 0, "learning": 1, "rates": 2, "decay": 40, "[PAD]": 3}
    library = Tokenizer(models.WordLevel(numbers, unk_token="[UNK]"))
    library.pre_tokenizer = pre_tokenizers.Whitespace()
    library.save(str(tmp_path / "plain.json"))
    # As published models are.
    library.enable_padding(pad_id=3, pad_token="[PAD]", length=50_000)
    library.enable_truncation(2)
    library.save(str(tmp_path / "model.json"))
    plain, task = (lm(text_file, 16, tokenizer=str(tmp_path / name)) for name in ("plain.json", "model.json"))
    assert task.sha256 == plain.sha256
    assert int(task.tokens["train"].max()) == 40 < task.tokenizer.vocabulary
    assert task.samples(task.build(), 2).count("----") == 1


def test_bits_per_byte_are_those_of_the_split(tmp_path: Path) -> None:
    # The tokens are learned from the words at the beginning: what comes later has more of them in a byte.
    words = "".join(f"{'decay' if n % 3 else 'schedule'} {'naïve ' * (n % 2)}\n" for n in range(900))
    (tmp_path / "text.txt").write_text(words + "".join(f"{n * 7919 % 100_003}\n" for n in range(600)))
    task = lm(tmp_path / "text.txt", 8, tokenizer="bpe:400")
    sets = {"train": "train", "part": "train[25%:60%]", "val": "val", "sum": "val+test"}
    config = LmConfig(out=tmp_path, data=str(tmp_path / "text.txt"), context=8, device="cpu", eval_splits=sets)
    evaluation = Evaluation(config, task, World(0, 1, torch.device("cpu")))
    found = evaluation(task.build(), [], nullcontext())
    texts = {name: tokens.tolist() for name, tokens in task.tokens.items()}
    count = len(texts["train"])
    tokens = {
        "train": texts["train"],
        "part": texts["train"][round(0.25 * count) : round(0.6 * count)],
        "val": texts["val"],
        "sum": texts["val"] + texts["test"],
    }
    for name, of_split in tokens.items():
        n_bytes = len(task.tokenizer.decode(of_split).encode())
        bits = found[f"{name}_loss"] / math.log(2) * len(of_split) / n_bytes
        assert found[f"{name}_bpb"] == pytest.approx(bits, rel=1e-3), name


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("train", [Part("train", 0, 200)]),
        ("train[90%:]", [Part("train", 180, 200)]),
        ("train[:12.5%]", [Part("train", 0, 25)]),
        ("train[10:-10]", [Part("train", 10, 190)]),
        ("train[-5%:]", [Part("train", 190, 200)]),
        ("train[:1000] + test", [Part("train", 0, 200), Part("test", 0, 50)]),
    ],
)
def test_names_of_splits(text: str, parts: list[Part]) -> None:
    assert parse_split(text, {"train": 200, "test": 50}) == parts


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tests", "the data has no 'tests', did you mean test?"),
        ("val", "the data has no 'val': allowed are train, test"),
        ("train[90:", r"'train\[90:' is none; allowed are such as train"),
        ("train[300:]", "it is empty, as train has 200 examples"),
    ],
)
def test_wrong_names_of_splits(text: str, message: str) -> None:
    with pytest.raises(TrainError, match=message):
        parse_split(text, {"train": 200, "test": 50})


def test_each_example_comes_once_in_an_epoch() -> None:
    order = Order(n=10, batch=4, seed=1, replacement=False)
    stream = torch.cat([order.indices(step) for step in range(10)])
    epochs = stream.view(4, 10)
    assert all(sorted(epoch.tolist()) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch.tolist()) for epoch in epochs}) == 4
    later_first = Order(n=10, batch=4, seed=1, replacement=False)
    assert torch.equal(later_first.indices(7), order.indices(7))
    assert torch.equal(later_first.indices(2), order.indices(2))
    assert Order(n=3, batch=8, seed=0, replacement=False).indices(5).shape == (8,)


@pytest.mark.parametrize("workers", [0, 2])
def test_processes_and_parts_share_a_batch(workers: int) -> None:
    task = ImageTask(ImageConfig(out=Path("o"), flip=True, batch=8))
    order = Order(len(task.training), batch=8, seed=0, replacement=False)

    def images(accumulate: int, rank: int, size: int) -> list[torch.Tensor]:
        feed = Feed(Parts(task.training, order, accumulate, rank, size), 3, 5, workers, CPU)
        return [torch.cat([inputs for inputs, _ in parts]) for parts in feed]

    state = torch.get_rng_state()
    alone = images(accumulate=2, rank=0, size=1)
    first, second = images(1, 0, 2), images(1, 1, 2)
    assert [len(step) for step in alone] == [8, 8]
    assert all(
        torch.equal(whole, torch.cat(halves))
        for whole, halves in zip(alone, zip(first, second, strict=True), strict=True)
    )
    assert torch.equal(torch.get_rng_state(), state), "the model's random numbers do not depend on the data"


@pytest.mark.parametrize(("batch", "accumulate", "size"), [(7, 1, 2), (1, 1, 2), (8, 4, 4)])
def test_a_batch_that_the_processes_cannot_share_is_refused(batch: int, accumulate: int, size: int) -> None:
    task = TabularTask(TabularConfig(out=Path("o")))
    order = Order(len(task.training), batch, seed=0, replacement=False)
    with pytest.raises(TrainError, match=f"batch is {batch}: {size} processes .* multiple of {accumulate * size}"):
        Parts(task.training, order, accumulate, 0, size)


def write_svmlight(path: Path, n: int = 50) -> None:
    rows = (f"{-1 if i % 2 else 1} 1:{i} {2 + i % 3}:{0.5 * i}\n" for i in range(n))
    with gzip.open(path, "wt") if path.suffix == ".gz" else path.open("w") as file:
        file.writelines(rows)


def table(data: str, directory: Path, **options: object) -> TabularTask:
    values = {"out": "o", "data": data, "data_dir": directory, **options}
    return TabularTask(TabularConfig.model_validate(values))


def test_a_libsvm_file_is_read(tmp_path: Path) -> None:
    write_svmlight(tmp_path / "a.txt")
    write_svmlight(tmp_path / "b.txt.gz", n=10)
    task = table(str(tmp_path / "a.txt"), tmp_path)
    assert {name: len(rows) for name, rows in task.splits.items()} == {"train": 40, "test": 10}
    x, y = task.training.batch(torch.arange(len(task.training)))
    assert x.shape == (36, 4)
    assert set(y.tolist()) == {0, 1}
    assert torch.equal(y, 1 - (x[:, 0].long() % 2)), "features stay beside their class"
    both = table(str(tmp_path / "a.txt"), tmp_path, test_data=str(tmp_path / "b.txt.gz"))
    assert {name: len(rows) for name, rows in both.splits.items()} == {"train": 50, "test": 10}
    assert both.sha256 != task.sha256


def test_tables_that_make_no_task(tmp_path: Path) -> None:
    (tmp_path / "bad").write_text("hello\n")
    with pytest.raises(TrainError, match=r"cannot read the libsvm file .*bad"):
        table(str(tmp_path / "bad"), tmp_path)
    with pytest.raises(TrainError, match="no data at breast_cancr, did you mean breast_cancer"):
        table("breast_cancr", tmp_path)
    with pytest.raises(TrainError, match="the targets of diabetes are numbers"):
        table("diabetes", tmp_path, loss="cross_entropy")


def test_features_are_standardized_by_the_training_split(tmp_path: Path) -> None:
    task = table("wine", tmp_path, train_split="train[:80]")
    model = task.build()
    x, _ = task.training.batch(torch.arange(80))
    standardized = next(iter(model.children()))(x)
    assert torch.allclose(standardized.mean(dim=0), torch.zeros(13), atol=1e-4)
    assert torch.allclose(standardized.std(dim=0, correction=0), torch.ones(13), atol=1e-4)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    """Serve tmp_path/served on this machine; the list says what was asked for."""
    asked: list[str] = []
    served = tmp_path / "served"
    served.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *words: object) -> None:
            super().__init__(*words, directory=str(served))  # type: ignore[arg-type]

        def log_message(self, *words: object) -> None:
            asked.append(self.path)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}", asked
        listening.shutdown()
        thread.join()


def test_many_runs_download_a_set_once(server: tuple[str, list[str]], tmp_path: Path) -> None:
    address, asked = server
    write_svmlight(tmp_path / "served" / "set.txt")
    found: list[int] = []

    def run() -> None:
        found.append(len(table(f"{address}/set.txt", tmp_path / "data").training))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [36] * 4
    assert asked == ["/set.txt"]


def test_what_cannot_be_downloaded_is_told(server: tuple[str, list[str]], tmp_path: Path) -> None:
    with pytest.raises(TrainError, match=r"cannot get http.*absent into .*data: HTTP Error 404"):
        fetch(f"{server[0]}/absent", tmp_path / "data")
    assert [path.name for path in (tmp_path / "data").iterdir()] == [".lock"]
    with pytest.raises(TrainError, match=r"cannot get the thing into .*: no route"), downloading(tmp_path, "the thing"):
        raise OSError("no route")


def test_digits_have_stable_splits(tmp_path: Path) -> None:
    config = ImageConfig(out=tmp_path, crop="none")
    first, second = ImageTask(config), ImageTask(config)
    assert first.sha256 == second.sha256
    assert {name: len(rows) for name, rows in first.splits.items()} == {"train": 1438, "test": 359}
    validation = first.evaluation("train[90%:]", 0)
    assert len(first.training) + len(validation) == 1438
    assert not {*first.training.rows.tolist()} & {*validation.rows.tolist()}
    images, labels = first.evaluation("test", 100).batch(torch.arange(100))
    assert (images.shape, images.dtype) == ((100, 1, 8, 8), torch.uint8)
    assert set(labels.tolist()) == set(range(10))


def write_images(root: Path, sizes: dict[str, tuple[int, int]]) -> None:
    """Write red and blue pictures, ten of each, some wide and some high."""
    for index in range(20):
        name, color = ("red", (255, 0, 0)) if index % 2 else ("blue", (0, 0, 255))
        path = root / name / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", sizes[name], color).save(path)


def test_a_folder_of_images(tmp_path: Path) -> None:
    write_images(tmp_path / "images", {"red": (20, 12), "blue": (12, 30)})
    config = ImageConfig(
        out=tmp_path, data=f"folder:{tmp_path / 'images'}", image_size=8, crop="resized", randaugment=5, flip=True
    )
    task = ImageTask(config)
    images, _ = task.training.batch(torch.arange(len(task.training)))
    assert images.shape == (14, 3, 8, 8)
    assert task.names == ["blue", "red"]
    evaluated, classes = task.evaluation("test", 0).batch(torch.arange(4))
    assert [int(image[0, 4, 4] > image[2, 4, 4]) for image in evaluated] == classes.tolist()
    with pytest.raises(TrainError, match=r"data is folder:.*nothing"):
        read(ImageConfig(out=tmp_path, data=f"folder:{tmp_path / 'nothing'}"))
    with pytest.raises(TrainError, match="unknown data 'digit', did you mean digits"):
        read(ImageConfig(out=tmp_path, data="digit"))


def test_a_picture_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    write_images(tmp_path, {"red": (50, 50), "blue": (50, 50)})
    pictures = read(ImageConfig(out=tmp_path, data=f"folder:{tmp_path}")).pictures
    path = sorted(tmp_path.rglob("*.png"))[0]
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(TrainError, match=rf"cannot read the picture {path}: .*truncated"):
        _ = pictures[0]
    path.unlink()
    with pytest.raises(TrainError, match=rf"cannot read the picture {path}: No such file"):
        _ = pictures[0]


def test_a_folder_may_have_splits(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_images(tmp_path / "images" / split, {"red": (8, 8), "blue": (8, 8)})
    found = read(ImageConfig(out=tmp_path, data=f"folder:{tmp_path / 'images'}"))
    assert {name: rows.tolist() for name, rows in found.splits.items()} == {
        "train": list(range(20)),
        "test": list(range(20, 40)),
    }


def test_shifts_move_and_never_change_pixels() -> None:
    image = torch.arange(1, 65, dtype=torch.uint8).view(1, 1, 8, 8)
    moved = shifted(image.expand(200, -1, -1, -1), 1)
    places = {tuple((one[0] == 36).nonzero()[0].tolist()) for one in moved}
    assert places == {(4 + down, 3 + right) for down in (-1, 0, 1) for right in (-1, 0, 1)}
    assert all(set(one.unique().tolist()) <= {0, *range(1, 65)} for one in moved)


def test_mixup_mixes_images_and_classes_by_the_same_share() -> None:
    labels = torch.tensor([0, 1, 2, 3])
    images = (labels * 10).view(4, 1, 1, 1).to(torch.uint8)
    mixed, targets = mixed_up(images, labels, alpha=1.0, classes=4)
    assert torch.allclose(targets.sum(dim=1), torch.ones(4))
    assert torch.allclose(mixed.flatten(), targets @ torch.tensor([0.0, 10, 20, 30]))


def test_evaluation_is_not_augmented(tmp_path: Path) -> None:
    task = ImageTask(ImageConfig(out=tmp_path, flip=True, mixup=1.0, randaugment=9))
    chosen = torch.arange(8)
    plain = task.evaluation("train[:90%]", 0)
    assert torch.equal(plain.batch(chosen)[0], plain.batch(chosen)[0])
    assert not torch.equal(task.training.batch(chosen)[0], plain.batch(chosen)[0])


def test_a_fifth_is_set_apart() -> None:
    splits = with_test_split(10)
    assert sorted([*splits["train"], *splits["test"]]) == list(range(10))
    assert len(splits["test"]) == 2
    assert np.array_equal(splits["test"], with_test_split(10)["test"])
