#!/usr/bin/env bash
# One entry point for the checks on real GPUs, for a machine without a network that has torch.
# What is missing is installed from a folder of wheels (NANTUI_WHEELS, default .whl), into a folder of its own.
#   bash benchmarks/gpu/run.sh control nan          # some sections
#   bash benchmarks/gpu/run.sh ddp                  # all on several GPUs: ddp-healthy, -faults, -kills, -hang, -oom, -cost, -agents
#   bash benchmarks/gpu/run.sh cost --only "640 fp32"
#   bash benchmarks/gpu/run.sh reserved             # what the copies beside a step do to PyTorch's reserve, and to a full GPU
#   bash benchmarks/gpu/run.sh healthy              # NANTUI_HEALTHY_MINUTES of healthy trainings, 16 side by side
#   bash benchmarks/gpu/run.sh remedies --parts cpu gpu --workers 24
#   bash benchmarks/gpu/run.sh                      # all that this machine's GPUs allow
set -euo pipefail
cd "$(dirname "$0")/../.."
wheels=${NANTUI_WHEELS:-.whl}
site=${NANTUI_SITE:-/tmp/nantui-site}
if [ -d "$wheels" ] && [ ! -e "$site/installed" ]; then
  python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$site" "$wheels"/*.whl
  touch "$site/installed"
fi
export PYTHONPATH="$PWD:$site${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 YOLO_OFFLINE=true
export YOLO_CONFIG_DIR=${YOLO_CONFIG_DIR:-/tmp/nantui-ultralytics}
mkdir -p "$YOLO_CONFIG_DIR"
module=${NANTUI_MODULE:-benchmarks.gpu}
if [ "${1:-}" = remedies ]; then
  module=benchmarks.remedies
  shift
fi
exec python3 -m "$module" "$@"
