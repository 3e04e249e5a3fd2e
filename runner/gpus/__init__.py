"""The machine's GPUs: what NVML shows, and the leases on them."""
