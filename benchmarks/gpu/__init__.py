"""What only real GPUs can show: `bash benchmarks/gpu/run.sh`; docs/gpu-results.md keeps what it printed."""
