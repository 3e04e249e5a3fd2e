"""`run gpus`: what each GPU does, whose it is, and why it is or is not used."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from runner.gpus.devices import limit_of
from runner.gpus.eligibility import Claim, Conditions, Verdict, judge, remember
from runner.gpus.leases import LeaseStore, claims
from runner.gpus.nvml import Nvml

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from runner.gpus.devices import Device, GpuProcess, Snapshot


def run(options: argparse.Namespace) -> int:
    """Prints a table, or with --json an object a GPU; without a driver one line that says so."""
    nvml = Nvml()
    snapshot = nvml.snapshot()
    notices = nvml.take_notices()
    nvml.close()
    held = claims(LeaseStore().held(), mine=())
    conditions = Conditions()
    past = remember({}, snapshot, held, conditions)
    verdicts = judge(snapshot, past, held, conditions, limit_of(os.environ))
    if options.json:
        for device in snapshot.devices:
            print(json.dumps(_record(device, verdicts[device.uuid], held.get(device.uuid, []))))
        return 0
    console = Console(highlight=False, soft_wrap=True)
    if not snapshot.devices:
        console.print(Text(f"no GPU: {snapshot.no_driver or 'the NVIDIA driver knows of none'}"))
        return 0
    console.print(_table(snapshot, verdicts, held))
    for notice in notices:
        console.print(Text(notice, style="yellow"))
    return 0


def _table(snapshot: Snapshot, verdicts: Mapping[str, Verdict], held: Mapping[str, Sequence[Claim]]) -> Table:
    table = Table()
    for title in ("GPU", "name", "MiB used", "busy", "processes", "leases", "for a new trial"):
        table.add_column(title, overflow="fold")
    for device in snapshot.devices:
        verdict = verdicts[device.uuid]
        table.add_row(
            device.index,
            Text(device.name),
            _memory(device),
            "?" if device.utilization is None else f"{device.utilization}%",
            Text("\n".join(map(_process, device.processes or ()))),
            Text("\n".join(map(_claim, held.get(device.uuid, ())))),
            Text(verdict.reason or _free(verdict), style="" if verdict.reason else "green"),
        )
    return table


def _free(verdict: Verdict) -> str:
    return "free" if verdict.free_share == 1 else f"{float(verdict.free_share):.0%} free"


def _memory(device: Device) -> str:
    used, total = ("?" if mib is None else f"{mib}" for mib in (device.used_mib, device.total_mib))
    return f"{used} of {total}"


def _process(process: GpuProcess) -> str:
    used = "" if process.used_mib is None else f", {process.used_mib} MiB"
    return f"{process.user or '?'}: {process.program} (pid {process.pid}{used})"


def _claim(claim: Claim) -> str:
    part = "all" if claim.share == 1 else f"{float(claim.share):.0%}"
    return f"{claim.user}: {part}"


def _record(device: Device, verdict: Verdict, held: Sequence[Claim]) -> dict[str, Any]:
    return {
        "index": device.index,
        "uuid": device.uuid,
        "name": device.name,
        "bus": device.bus,
        "total_mib": device.total_mib,
        "used_mib": device.used_mib,
        "free_mib": device.free_mib,
        "utilization": device.utilization,
        "health": device.health.value,
        "processes": [
            {
                "pid": process.pid,
                "user": process.user,
                "command": process.command,
                "used_mib": process.used_mib,
                "is_compute": process.is_compute,
            }
            for process in device.processes or ()
        ],
        "leases": [{"user": claim.user, "pid": claim.pid, "share": float(claim.share)} for claim in held],
        "is_usable": verdict.is_usable,
        "reason": verdict.reason,
    }
