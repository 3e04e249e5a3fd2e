"""The machine's GPUs: what NVML shows, who holds them, what attempts need of them, and who goes where."""
