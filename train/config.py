"""Every option of a run: one typed class for each task, the source of flags, YAML keys, checks and documentation.

An option that is added later must have a default under which older runs stay what they were.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from train.errors import TrainError
from train.fields import Average, BelowOne, Count, Fraction, NotNegative, Positive, Steps, Whole, in_steps
from train.pieces import FILES
from train.schedules import ALLOWED, DECAY, Array, ramp, schedule

HOW = frozenset(
    (
        *("out", "device", "threads", "workers", "compile", "channels_last"),
        *("checkpoint_every", "keep", "best", "loggers", "samples", "data_dir"),
    )
)
"""How and where a run is done, not what it does: it may be resumed with other values of these."""
NOT_VARIED = HOW | {
    "log_every",
    "eval_every",
    "eval_first",
    "eval_batch",
    "eval_examples",
    "eval_splits",
    "data_sha256",
}
"""What is no hyperparameter of the result, and so stays out of TensorBoard's table of them."""


class Config(BaseModel):
    """The options that all tasks share."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        validate_default=True,
        protected_namespaces=(),
        defer_build=True,  # a run needs the checks of one task alone
    )

    out: Path
    """Directory of the results. A run that began there goes on."""
    task: Literal["lm", "image", "tabular"] = "lm"
    """What is learned: `lm` (next bytes or tokens of a text), `image` (classes of images) or `tabular` (classes or
    numbers from a table)."""
    data_sha256: str | None = None
    """Digest of the data, as the run's own config.yaml holds it: other data is refused."""
    train_split: str = "train[:90%]"
    """What is trained on: a split, a part of one (`train[:90%]`, `train[100:200]`), or a sum (`train+val`)."""
    eval_splits: dict[str, str] = {"val": "train[90%:]"}
    """What is evaluated: names and splits, `{val: "train[90%:]", test: test}`."""
    seed: Whole = 0
    """Seed of the model: its first weights and its dropout."""
    order_seed: Whole | None = None
    """Seed of the order of the training data and of augmentation; by default that of the model."""

    steps: Steps = 3000
    """Optimizer steps. Here and in warmup and *_every, also '10 epochs' or '1e6 samples'."""
    batch: Count = 8
    """Examples in a step, over all processes."""
    accumulate: Count = 1
    """Parts into which each process cuts its share of the batch, one after the other, to save memory."""
    init_from: Path | None = None
    """Begin with the whole state of a checkpoint file, or of the newest checkpoint of a run's directory, and train
    from its step to `steps`."""
    begin: Whole = 0
    """With init_from: the step to begin at, whose checkpoint is taken from the directory; 0: the newest one."""

    optimizer: Literal["adamw", "adam", "sgd", "muon", "lion"] = "adamw"
    """The optimizer. `muon` is for the hidden matrices, with AdamW for the rest; `lion` needs timm."""
    lr: Positive = 1e-2
    """Peak learning rate."""
    lr_scales: dict[str, NotNegative] = {}
    """Factors of the learning rate by the beginnings of parameters' names, `{head: 10}`; the longest one counts."""
    weight_decay: NotNegative = 0.1
    """Weight decay, of all but biases and norms; decoupled, but with `sgd` and `adam` (L2)."""
    momentum: BelowOne = 0.9
    """Momentum of `sgd` and `muon`."""
    nesterov: bool = False
    """Nesterov's momentum, with `sgd` and `muon`."""
    beta1: BelowOne = 0.9
    """Decay of the mean gradient, with `adam`, `adamw` and `lion`."""
    beta2: BelowOne = 0.95
    """Decay of the mean squared gradient, with `adam` and `adamw`; of the momentum, with `lion`."""
    amsgrad: bool = False
    """Divide by the largest mean squared gradient so far, with `adam` and `adamw`."""
    clip: NotNegative = 1.0
    """Largest norm of the gradient; 0: no clipping."""
    schedule: str = Field(default="wsd", description=f"The learning rate's course: {ALLOWED}.")
    lr1: NotNegative | None = None
    """With lr2, instead of a schedule: the learning rate at the step where this run begins."""
    lr2: NotNegative | None = None
    """The learning rate towards which it goes, in a line, until `steps`."""
    warmup: Steps = 100
    """Steps of warm-up."""
    warmup_kind: Literal["linear", "constant"] = "linear"
    """Whether the learning rate rises in a line, or is a tenth of the schedule's during the warm-up."""
    floor: Fraction = 0.1
    """Last learning rate, as a fraction of the peak."""
    decay: Fraction = DECAY
    """Fraction of the steps in which wsd schedules decay."""
    averages: list[Average] = []
    """Averages of the weights, evaluated beside the last ones: `ema_<decay>`, in which the decay weighs the old
    average, and `poly_<power>`, polynomial-decay averaging (0: the plain mean)."""
    averages_only: bool = False
    """Evaluate the averages alone."""

    eval_every: Steps = 500
    """Steps between evaluations; 0: only after the last step."""
    eval_first: bool = False
    """Evaluate before the first step too."""
    eval_batch: Count = 256
    """Examples that are evaluated at once, in each process."""
    eval_examples: Whole = 0
    """Examples of each split in an evaluation, evenly spaced, always the same; 0: all."""
    monitor: str | None = None
    """The metric that decides the best checkpoint and early stopping; by default the first column of an evaluation."""
    monitor_mode: Literal["min", "max"] | None = None
    """Whether less or more of that metric is better; by default less of a loss or an error, more of anything else."""
    patience: Whole = 0
    """Evaluations without an improvement after which the run ends; 0: it goes on."""
    max_loss: Positive | None = None
    """A logged loss above this counts as diverged, as one that is not finite always does."""

    checkpoint_every: Steps = 500
    """Steps between checkpoints; 0: only at the end or at a signal."""
    keep: Whole = 1
    """Checkpoints that are kept, the last ones; 0: all."""
    best: bool = False
    """Keep the best checkpoint too."""

    log_every: Steps = 50
    """Steps between the rows of metrics.csv."""
    loggers: list[Literal["tensorboard", "wandb"]] = ["tensorboard"]
    """Where else the rows go; `wandb` needs the package of that name."""
    samples: Whole = 0
    """Samples that are shown at each evaluation: generated texts, or training images."""

    device: str = "auto"
    """`auto` (a GPU if there is one), `cpu`, `cuda` or `cuda:N`."""
    threads: Whole = 1
    """CPU threads; 0: as many as torch likes."""
    workers: Whole = 0
    """Processes that prepare batches; 0: the training process does."""
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    """Arithmetic of the forward and backward pass; weights stay fp32."""
    compile: bool = False
    """Compile the model."""

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        _require(self.batch % self.accumulate == 0, "batch", self.batch, f"accumulate ({self.accumulate}) divides it")
        _require(self.eval_splits != {}, "eval_splits", {}, "at least one split")
        for name in self.eval_splits:
            is_plain = name.isprintable() and not {*name} & {",", '"'} and name != ""
            _require(is_plain, "eval_splits", repr(name), "a name without commas, quotation marks and line breaks")
        _require(self.begin == 0 or self.init_from is not None, "begin", self.begin, "init_from beside it")
        _require((self.lr1 is None) == (self.lr2 is None), "lr1", self.lr1, "lr2 beside it, and lr1 beside lr2")
        for name in ("schedule", "lr", "warmup") if self.lr1 is not None else ():
            unused = getattr(self, name) == type(self).model_fields[name].default
            _require(unused, "lr1", self.lr1, f"either it or {name}")
        twice = sorted({name for name in self.averages if self.averages.count(name) > 1})
        _require(not twice, "averages", self.averages, f"{', '.join(twice)} once")
        _require(not self.averages_only or self.averages != [], "averages_only", True, "averages beside it")
        _require(not self.nesterov or self.momentum > 0, "nesterov", True, "a momentum above 0")
        for name in ("steps", "log_every"):
            _require(getattr(self, name) != 0, name, 0, "at least 1")
        for name in ("steps", "warmup", "log_every", "eval_every", "checkpoint_every"):
            value = getattr(self, name)
            _require(isinstance(value, str) or value >= 0, name, value, "at least 0")
        return self

    def lrs(self, begin: int = 0) -> Array:
        """Return the LR of every step: shape [steps]. Only for a config whose durations are steps.

        A run that begins with another one's state at step `begin` has only those from there on.
        """
        steps = in_steps(self.steps)
        if self.lr1 is not None and self.lr2 is not None:
            return ramp(begin, steps, self.lr1, self.lr2)(np.arange(steps, dtype=np.float64))
        warmup = in_steps(self.warmup)
        if warmup > steps and not self.schedule.endswith(FILES):
            raise TrainError(f"warmup is {warmup}: it must lie between 0 and steps ({steps}); --warmup sets it")
        return schedule(self.schedule, steps, self.lr, warmup, self.floor, self.decay, self.warmup_kind)

    def in_steps(self, epoch: int) -> Self:
        """Return the same with every duration in steps, where `epoch` examples are an epoch."""
        names = {"steps", "warmup", "log_every", "eval_every", "checkpoint_every"}
        if self.lr1 is not None:
            # Unused: it stays the default, as which it may stand beside lr1.
            names -= {"warmup"}
        return self.model_copy(update={name: in_steps(getattr(self, name), self.batch, epoch) for name in names})

    def varied(self) -> dict[str, Any]:
        """The hyperparameters: what a user would vary and compare."""
        return self.model_dump(mode="json", exclude=set(NOT_VARIED))


class LmConfig(Config):
    """A GPT on bytes or tokens of text."""

    task: Literal["lm"] = "lm"
    train_split: str = "train"
    eval_splits: dict[str, str] = {"val": "val"}
    eval_examples: Whole = 1024
    data: str = "stdlib"
    """`stdlib`, the sources of Python's standard library, or a text file or a directory of text files."""
    tokenizer: str = "bytes"
    """`bytes`; `bpe:<size>`, byte-pair encoding learned from the training split; or the path of a tokenizer.json."""
    layers: Count = 1
    """Transformer blocks."""
    width: Count = 48
    """Width of the residual stream."""
    heads: Count = 4
    """Attention heads; they divide the width."""
    context: Count = 32
    """Tokens that the model sees."""
    positions: Literal["learned", "rope"] = "learned"
    """Learned embeddings of the positions, or rotary ones."""
    dropout: BelowOne = 0.0
    """Dropout of the embeddings and of what each block adds."""

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        _require(self.width % self.heads == 0, "width", self.width, f"heads ({self.heads}) divide it")
        even = self.width // self.heads % 2 == 0
        _require(self.positions == "learned" or even, "positions", self.positions, "an even width of each head")
        return self


class ImageConfig(Config):
    """A classifier of images."""

    task: Literal["image"] = "image"
    steps: Steps = "30 epochs"
    warmup: Steps = "1 epoch"
    batch: Count = 64
    lr: Positive = 3e-3
    schedule: str = Field(default="cosine", description=f"The learning rate's course: {ALLOWED}.")
    floor: Fraction = 0.0
    beta2: BelowOne = 0.999
    eval_every: Steps = "5 epochs"
    checkpoint_every: Steps = "5 epochs"
    data: str = "digits"
    """`digits` (scikit-learn's, nothing to download), `folder:<path>` (a directory for each class), `torchvision:<set>`
    (`torchvision:CIFAR10`) or `hf:<set>` (Hugging Face)."""
    data_dir: Path = Path("data")
    """Where data sets and pretrained weights are downloaded to, once, however many runs need them."""
    model: str = "resnet8"
    """`lenet`, `resnet<depth>` (8, 14, 20, …), `wrn<depth>_<width>` (wrn16_4), `vit_tiny`, `timm:<name>` or
    `clip:<name>` (open_clip)."""
    pretrained: str = ""
    """With `timm:` and `clip:`: the tag of pretrained weights (`default`, `openai`); empty: none."""
    head_init: Literal["default", "zero", "random", "zero_shot"] = "default"
    """First weights of the last layer; `zero_shot`: CLIP's embeddings of the classes' names."""
    image_size: Whole = 0
    """Height and width to which images are brought; 0: what the model or the data ask for."""
    crop: Literal["none", "shift", "resized"] = "shift"
    """Training crops: shifts by up to an eighth, or random parts resized."""
    flip: bool = False
    """Mirror half of the training images."""
    randaugment: Annotated[Whole, Field(le=30)] = 0
    """Magnitude of RandAugment; 0: none."""
    mixup: NotNegative = 0.0
    """Mixup's alpha; 0: none."""
    loss: Literal["cross_entropy", "squared"] = "cross_entropy"
    """What is minimised."""
    channels_last: bool = False
    """Keep images channels last in memory, which is faster on GPUs."""


TABLES = ("breast_cancer", "iris", "wine", "diabetes")
"""The tables that scikit-learn brings along."""


class TabularConfig(Config):
    """A linear model or an MLP on a table."""

    task: Literal["tabular"] = "tabular"
    steps: Steps = 1000
    batch: Count = 64
    weight_decay: NotNegative = 0.0
    schedule: str = Field(default="cosine", description=f"The learning rate's course: {ALLOWED}.")
    floor: Fraction = 0.0
    beta2: BelowOne = 0.999
    data: str = "breast_cancer"
    """A set of scikit-learn (`breast_cancer`, `iris`, `wine`, `diabetes`), or the path or URL of a file in the
    libsvm (svmlight) format, also .gz and .bz2."""
    test_data: str | None = None
    """The file of the test split; by default a fifth of the data is set apart."""
    data_dir: Path = Path("data")
    """Where data sets are downloaded to, once, however many runs need them."""
    hidden: list[Count] = []
    """Widths of the hidden layers; none: a linear model."""
    standardize: bool | None = None
    """Bring each feature to mean 0 and deviation 1 on the training split; by default if the data is not sparse."""
    loss: Literal["cross_entropy", "squared"] | None = None
    """What is minimised; by default cross-entropy for classes, squared for numbers."""

    @model_validator(mode="after")
    def _of_tables(self) -> Self:
        _require(self.samples == 0, "samples", self.samples, "0, as a table has none to show")
        is_file = self.data not in TABLES
        _require(is_file or self.test_data is None, "test_data", self.test_data, f"a file beside it, not {self.data}")
        return self


CONFIGS: dict[str, type[Config]] = {"lm": LmConfig, "image": ImageConfig, "tabular": TabularConfig}


def _require(holds: bool, name: str, value: object, needed: str) -> None:
    if not holds:
        raise ValueError(f"{name} is {value}: needed is {needed}")
