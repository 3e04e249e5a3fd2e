"""Causes from how attempts end and from the ends of their logs."""

import signal
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.triage import Cause, CauseKind, classify

FRAMES = """Traceback (most recent call last):
  File "/home/me/train.py", line 41, in <module>
    main()
    ~~~~^^
  File "/home/me/train.py", line 30, in main
    loss.backward()
"""
OOM = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.11 GiB "
    "of which 1.20 GiB is free."
)
DIRECT = "\nThe above exception was the direct cause of the following exception:\n\n"
HANDLING = "\nDuring handling of the above exception, another exception occurred:\n\n"
STEPS = "".join(f"step {step} loss {3 / step:.3f}\n" for step in range(1, 60))
WANDB = """wandb:
wandb: Run summary:
wandb: loss nan
wandb: You can sync this run to the cloud by running:
wandb: Find logs at: wandb/offline-run/logs
"""
TRACKER = (
    "/usr/lib/python3.12/multiprocessing/resource_tracker.py:254: UserWarning: resource_tracker: There appear to be "
    "6 leaked semaphore objects to clean up at shutdown\n  warnings.warn('resource_tracker: There appear to be %d '\n"
)
IGNORED = """Exception ignored in: <function _MultiProcessingDataLoaderIter.__del__ at 0x7f>
Traceback (most recent call last):
  File "dataloader.py", line 1604, in __del__
    self._shutdown_workers()
AssertionError: can only test a child process
"""
TORCHRUN = """E1103 12:00:00.12 1 torch/distributed/elastic/multiprocessing/api.py:8] failed (exitcode: 1) local_rank: 0
Traceback (most recent call last):
  File "/usr/local/bin/torchrun", line 8, in <module>
    sys.exit(main())
  File "torch/distributed/launcher/api.py", line 264, in launch_agent
    raise ChildFailedError(
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
============================================================
train.py FAILED
------------------------------------------------------------
Failures:
  <NO_OTHER_FAILURES>
------------------------------------------------------------
Root Cause (first observed failure):
[0]:
  time      : 2025-11-03_12:00:00
  host      : node
  rank      : 0 (local_rank: 0)
  exitcode  : {code} (pid: 4242)
  error_file: <N/A>
  traceback : {traceback}
============================================================
"""
LAUNCHER = TORCHRUN.format(code="1", traceback="To enable traceback see: https://pytorch.org/docs/elastic/errors.html")
ACCELERATE = """Traceback (most recent call last):
  File "/usr/bin/accelerate", line 8, in <module>
    sys.exit(main())
  File "launch.py", line 763, in simple_launcher
    raise subprocess.CalledProcessError(returncode=process.returncode, cmd=cmd)
subprocess.CalledProcessError: Command '['/usr/bin/python', 'train.py']' returned non-zero exit status 1.
"""


def kind(tail: str, code: int = 1) -> str:
    return classify(code, None, tail).kind.value


@pytest.mark.parametrize(
    "line",
    [
        OOM,
        "torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB (GPU 0; 11.17 GiB total)",
        "RuntimeError: CUDA out of memory. Tried to allocate 20.00 MiB",
        "RuntimeError: CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported",
        "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "RuntimeError: cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "torch.OutOfMemoryError: HIP out of memory. Tried to allocate 64.00 MiB",
        "RuntimeError: MPS backend out of memory (MPS allocated: 9.05 GB)",
        "jaxlib.xla_extension.XlaRuntimeError: RESOURCE_EXHAUSTED: Out of memory while allocating 17179869184 bytes.",
        "cupy.cuda.memory.OutOfMemoryError: Out of memory allocating 4,294,967,296 bytes",
        "numba.cuda.cudadrv.driver.CudaAPIError: [2] Call to cuMemAlloc results in CUDA_ERROR_OUT_OF_MEMORY",
        "tensorflow.python.framework.errors_impl.ResourceExhaustedError: Graph execution error:\n\nDetected at node "
        "'dense/MatMul' defined at (most recent call last):\n  File 'x.py', line 1\nNode: 'dense/MatMul'\n"
        "OOM when allocating tensor with shape[8,9] and type float on /job:x/device:GPU:0 by allocator GPU_0_bfc",
        "torch.distributed.DistBackendError: NCCL error in: ProcessGroupNCCL.cpp:1970, unhandled cuda error\n"
        "Last error:\nCuda failure 2 'out of memory'",
        "RuntimeError: No executable batch size found, reached zero.",
    ],
)
def test_memory_of_the_gpu(line: str) -> None:
    cause = classify(1, None, STEPS + FRAMES + line + "\n")
    assert cause == Cause(CauseKind.CUDA_OOM, line.split("\n")[0])


@pytest.mark.parametrize(
    ("code", "tail", "last"),
    [
        (1, FRAMES + "MemoryError\n", "MemoryError"),
        (
            1,
            FRAMES + "numpy._core._exceptions._ArrayMemoryError: Unable to allocate 745. GiB for an array\n",
            "numpy._core._exceptions._ArrayMemoryError: Unable to allocate 745. GiB for an array",
        ),
        (
            134,
            "terminate called after throwing an instance of 'std::bad_alloc'\n  what():  std::bad_alloc\n"
            "run: line 7: 4242 Aborted                 (core dumped) ./solve\n",
            "terminate called after throwing an instance of 'std::bad_alloc'",
        ),
        (
            1,
            FRAMES + "RuntimeError: [enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory\n",
            "RuntimeError: [enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory",
        ),
        (1, FRAMES + "OSError: [Errno 12] Cannot allocate memory\n", "OSError: [Errno 12] Cannot allocate memory"),
        (
            1,
            FRAMES + "RuntimeError: DataLoader worker (pid 4242) is killed by signal: Killed. \n",
            "RuntimeError: DataLoader worker (pid 4242) is killed by signal: Killed.",
        ),
        (
            137,
            STEPS + "slurmstepd: error: Detected 1 oom_kill event in StepId=12.batch. Some of the step tasks\n",
            "slurmstepd: error: Detected 1 oom_kill event in StepId=12.batch. Some of the step tasks",
        ),
    ],
)
def test_memory_of_the_machine(code: int, tail: str, last: str) -> None:
    assert classify(code, None, tail) == Cause(CauseKind.HOST_OOM, last)


def test_the_kernels_word_on_memory_counts_above_the_log() -> None:
    tail = "step 1\nrun: line 7:  4242 Killed                  python train.py\n"
    assert classify(137, None, tail, was_oom_killed=True).kind is CauseKind.HOST_OOM
    assert classify(1, None, FRAMES + "EOFError\n", was_oom_killed=True).kind is CauseKind.HOST_OOM
    # Without it nobody knows who sent the signal.
    assert classify(137, None, tail) == Cause(
        CauseKind.SIGNAL, "run: line 7:  4242 Killed                  python train.py"
    )


@pytest.mark.parametrize(
    ("code", "tail"),
    [
        (76, ""),
        (76, STEPS),
        (76, FRAMES + OOM),
        (1, STEPS + FRAMES + "ValueError: loss is NaN at step 60\n"),
        (1, FRAMES + "FloatingPointError: Minimum loss scale reached (0.0001). Your loss is probably exploding.\n"),
        (1, FRAMES + "RuntimeError: Function 'MulBackward0' returned nan values in its 0th output.\n"),
        (
            1,
            FRAMES + "Exception: Current loss scale already at minimum - cannot decrease scale anymore. Exiting run.\n",
        ),
        (1, FRAMES + "RuntimeError: probability tensor contains either `inf`, `nan` or element < 0\n"),
        (1, FRAMES + "FloatingPointError: invalid value (nan) encountered in jit(step)\n"),
        (
            1,
            FRAMES + "RuntimeError: The total norm of order 2.0 for gradients from `parameters` is non-finite, so it "
            "cannot be clipped.\n",
        ),
        (
            1,
            FRAMES + "ValueError: Expected parameter loc (Tensor of shape (2,)) of distribution Normal(loc: [2]) to "
            "satisfy the constraint Real(), but found invalid values:\ntensor([[nan, nan]])\n",
        ),
        (1, STEPS + "Loss is nan, stopping training\n"),
        (1, STEPS + "step 60 loss nan\n" + WANDB),
        (1, STEPS + "Training diverged.\n"),
    ],
)
def test_divergence(code: int, tail: str) -> None:
    assert kind(tail, code) == "diverged"


@pytest.mark.parametrize(
    ("tail", "last"),
    [
        (FRAMES + "KeyError: 'lr'\n", "KeyError: 'lr'"),
        (FRAMES + "KeyError: 'lr'", "KeyError: 'lr'"),
        (FRAMES + "AssertionError\n", "AssertionError"),
        (FRAMES + "mylib.config.BadThing: no such layer\n", "mylib.config.BadThing: no such layer"),
        (FRAMES + "Oops: custom\n", "Oops: custom"),
        (
            "  File \"t.py\", line 3\n    foo(\n       ^\nSyntaxError: '(' was never closed\n",
            "SyntaxError: '(' was never closed",
        ),
        (FRAMES + "KeyError: 'lr'\n" + WANDB, "KeyError: 'lr'"),
        (FRAMES + "KeyError: 'lr'\n" + TRACKER, "KeyError: 'lr'"),
        (FRAMES + "KeyError: 'lr'\n" + IGNORED, "KeyError: 'lr'"),
        (FRAMES + "KeyError: 'lr'\n" + LAUNCHER, "KeyError: 'lr'"),
        (FRAMES + "KeyError: 'lr'\n" + ACCELERATE, "KeyError: 'lr'"),
        (FRAMES + "KeyError: 'lr'\n" + HANDLING + FRAMES + "TypeError: bad handler\n", "TypeError: bad handler"),
        (FRAMES + "KeyError: 'lr'\n" + DIRECT + FRAMES + "ValueError: no lr\n", "ValueError: no lr"),
        (FRAMES + OOM + "\n" + HANDLING + FRAMES + "TypeError: bad handler\n", "TypeError: bad handler"),
        (
            "Error executing job with overrides: ['lr=1']\n"
            + FRAMES
            + "KeyError: 'lr'\n\nSet the environment variable "
            "HYDRA_FULL_ERROR=1 for a complete stack trace.\n",
            "KeyError: 'lr'",
        ),
        (" 12%|█▏  | 12/100 [00:03<00:22, 3.9it/s]" + FRAMES + "KeyError: 1\n 12%|█▏  | 12/100 [00:03]", "KeyError: 1"),
        ("\x1b[31m" + FRAMES + "\x1b[1mKeyError\x1b[0m: 'lr'\n", "KeyError: 'lr'"),
        (FRAMES.replace("\n", "\r\n") + "KeyError: 'lr'\r\n", "KeyError: 'lr'"),
        (
            "".join(f"[rank0]: {line}\n" for line in (FRAMES + "IndexError: 9").splitlines()) + LAUNCHER,
            "IndexError: 9",
        ),
        (
            FRAMES + "IndexError: 9\n" + FRAMES + "torch.distributed.DistBackendError: NCCL error in: x.cpp:1, remote "
            "process exited or there was a network error\n" + LAUNCHER,
            "IndexError: 9",
        ),
        (
            FRAMES
            + "RuntimeError: Caught ValueError in DataLoader worker process 0.\nOriginal "
            + FRAMES
            + "ValueError: bad image\n",
            "ValueError: bad image",
        ),
        (
            FRAMES + "RuntimeError: CUDA error: device-side assert triggered\nCUDA kernel errors might be "
            "asynchronously reported\nFor debugging consider passing CUDA_LAUNCH_BLOCKING=1\nCompile with "
            "`TORCH_USE_CUDA_DSA` to enable device-side assertions.\n",
            "RuntimeError: CUDA error: device-side assert triggered",
        ),
        (
            "╭─── Traceback (most recent call last) ───╮\n│ /x/train.py:3 in main │\n│ ❱ 3 raise │\n"
            "╰──────────────────────╯\nValueError: x\n",
            "ValueError: x",
        ),
        (
            FRAMES + "ValueError: cannot convert float NaN to integer\n",
            "ValueError: cannot convert float NaN to integer",
        ),
        (FRAMES + "ValueError: Input X contains NaN.\n", "ValueError: Input X contains NaN."),
        (FRAMES + "ModuleNotFoundError: No module named 'timm'\n", "ModuleNotFoundError: No module named 'timm'"),
        # What the program got over is no cause.
        (OOM + "\nstep 1 loss nan\n" + STEPS + FRAMES + "KeyError: 'lr'\n", "KeyError: 'lr'"),
        (FRAMES + OOM + "\ntrying a smaller batch\n" + STEPS + FRAMES + "KeyError: 'lr'\n", "KeyError: 'lr'"),
    ],
)
def test_a_traceback_tells_its_last_line_whatever_follows(tail: str, last: str) -> None:
    assert classify(1, None, tail) == Cause(CauseKind.TRACEBACK, last)


@pytest.mark.parametrize(
    ("code", "tail"),
    [
        (1, FRAMES + "OSError: [Errno 28] No space left on device\n"),
        (1, FRAMES + "OSError: [Errno 122] Disk quota exceeded: 'model.pt'\n"),
        (
            1,
            FRAMES
            + "OSError: [Errno 28] No space left on device: 'a'\n"
            + HANDLING
            + FRAMES
            + "RuntimeError: [enforce "
            "fail at inline_container.cc:603] . unexpected pos 64 vs 0\n",
        ),
        (1, "run: line 7: echo: write error: No space left on device\n"),
        (2, "tar: x: Cannot write: No space left on device\ntar: Exiting with failure status due to previous errors\n"),
    ],
)
def test_a_full_disk(code: int, tail: str) -> None:
    assert kind(tail, code) == "disk-full"


@pytest.mark.parametrize(
    "tail",
    [
        FRAMES + OOM + "\n" + LAUNCHER,
        FRAMES + OOM + "\n" + ACCELERATE,
        FRAMES + OOM + "\n" + DIRECT + FRAMES + "TrainingFailed: see above\n",
        FRAMES + OOM + "\n" + WANDB + TRACKER + IGNORED,
        "ggml_backend_cuda_buffer: allocating 7168 MiB: cudaMalloc failed: out of memory\nllama: failed\n",
    ],
)
def test_memory_of_the_gpu_below_wrappers_and_without_python(tail: str) -> None:
    assert kind(tail) == "oom"


@pytest.mark.parametrize(
    ("code", "tail", "last"),
    [
        (137, "", "ended by SIGKILL"),
        (143, STEPS, "ended by SIGTERM after: step 59 loss 0.051"),
        (137, FRAMES + "KeyError: 1\n" + STEPS, "ended by SIGKILL after: step 59 loss 0.051"),
        (130, FRAMES + "KeyboardInterrupt\n", "KeyboardInterrupt"),
        (1, FRAMES + "KeyboardInterrupt\n", "KeyboardInterrupt"),
        (139, STEPS + "Fatal Python error: Segmentation fault\n\n  File x\n", "Fatal Python error: Segmentation fault"),
        (
            139,
            "run: line 7: 42 Segmentation fault      (core dumped) ./a\n",
            "run: line 7: 42 Segmentation fault      (core dumped) ./a",
        ),
        (139, "", "ended by SIGSEGV"),
        (
            1,
            TORCHRUN.format(code="-9", traceback="Signal 9 (SIGKILL) received by PID 4242"),
            "traceback : Signal 9 (SIGKILL) received by PID 4242",
        ),
    ],
)
def test_signals(code: int, tail: str, last: str) -> None:
    assert classify(code, None, tail) == Cause(CauseKind.SIGNAL, last)


def test_a_program_that_aborts_itself_after_a_traceback_ended_by_that() -> None:
    assert kind(FRAMES + "KeyError: 1\nrun: line 7: 42 Aborted   (core dumped) python x\n", 134) == "traceback"


def test_the_signal_of_the_shell_itself() -> None:
    assert classify(None, signal.SIGKILL, "step 1\n") == Cause(CauseKind.SIGNAL, "ended by SIGKILL after: step 1")
    assert classify(None, 40, "").line == "ended by signal 40"


@pytest.mark.parametrize(
    ("code", "tail", "last"),
    [
        (127, "run: line 7: trian: command not found\n", "run: line 7: trian: command not found"),
        (126, "run: line 7: ./train: Permission denied\n", "run: line 7: ./train: Permission denied"),
        (127, "", ""),
        (
            2,
            "python: can't open file '/home/me/trian.py': [Errno 2] No such file or directory\n",
            "python: can't open file '/home/me/trian.py': [Errno 2] No such file or directory",
        ),
        (1, "/usr/bin/python3: No module named trian\n", "/usr/bin/python3: No module named trian"),
    ],
)
def test_a_command_that_is_not_there(code: int, tail: str, last: str) -> None:
    assert classify(code, None, tail) == Cause(CauseKind.NOT_FOUND, last)


@pytest.mark.parametrize(
    ("code", "tail", "last"),
    [
        (3, "", ""),
        (3, STEPS, "step 59 loss 0.051"),
        (1, "out of memory tests: on\nnan checks: off\n" + STEPS, "step 59 loss 0.051"),
        (1, "run: line 7: nvidia-smi: command not found\n" + STEPS, "step 59 loss 0.051"),
        (1, FRAMES + OOM + "\n" + STEPS + "cannot go on\n", "cannot go on"),
        (
            2,
            "usage: train.py [-h]\ntrain.py: error: unrecognized arguments: --foo\n",
            "train.py: error: unrecognized arguments: --foo",
        ),
        (1, "Error: config.yaml is missing.\nSee --help.\n", "Error: config.yaml is missing."),
        (1, "CUDA out of memory, skipping the batch\nno data left\n", "no data left"),
        (1, "evaluating the informative nanny set\n", "evaluating the informative nanny set"),
        (1, "warnings only\n" + WANDB, "warnings only"),
        (1, "trainer.Loop: epoch 1 ended\n", "trainer.Loop: epoch 1 ended"),
        (1, WANDB, "wandb: Find logs at: wandb/offline-run/logs"),
    ],
)
def test_any_other_exit(code: int, tail: str, last: str) -> None:
    assert classify(code, None, tail) == Cause(CauseKind.EXIT, last)


@pytest.mark.parametrize("reason", ["timeout", "stall"])
def test_what_the_daemon_ended_for_a_reason_ended_for_that(reason: Literal["timeout", "stall"]) -> None:
    cause = classify(143, None, FRAMES + "KeyboardInterrupt\n", ended_as=reason)
    assert cause == Cause(CauseKind(reason), "KeyboardInterrupt")


def test_a_time_limit_of_the_batch_system() -> None:
    tail = "step 1\nslurmstepd: error: *** JOB 12 ON n1 CANCELLED AT 2025-11-03T12:00:00 DUE TO TIME LIMIT ***\n"
    assert kind(tail, 143) == "timeout"


def test_an_end_that_nobody_saw() -> None:
    assert classify(None, None, FRAMES + "KeyError: 1\n") == Cause(CauseKind.LOST, "KeyError: 1")


@pytest.mark.parametrize(
    "tail", ["x" * 1_000_000, "\0" * 70_000, "\ufffd\x1b[" * 9000, "loss " * 20_000, "a.b" * 30_000]
)
def test_a_log_of_anything_gives_a_short_printable_line(tail: str) -> None:
    cause = classify(1, None, tail)
    assert cause.kind is CauseKind.EXIT
    assert len(cause.line) <= 300
    assert cause.line.isprintable()


@given(
    code=st.none() | st.integers(0, 255),
    tail=st.lists(st.text() | st.sampled_from([FRAMES, OOM, DIRECT, WANDB, "\n", "\r"])).map("".join),
)
def test_every_end_has_a_cause(code: int | None, tail: str) -> None:
    cause = classify(code, None, tail)
    assert len(cause.line) <= 300
    assert cause.line.isprintable()
