#!/bin/bash
@OPTIONS@

# Written by nantui, and the same at every start: a run that has nothing yet begins, else it goes on from
# its newest point.
run=@RUN@
nantui=(@NANTUI@)

# Slurm signals this shell before the time is over, and every process when it takes the nodes back.
told= leader=
trap 'told=USR1; kill -USR1 $leader 2>/dev/null' USR1
trap 'told=TERM; kill -TERM $leader 2>/dev/null' TERM

"${nantui[@]}" resume "$run" --wait --yes --trust --take-over &
leader=$!
if [ -n "$told" ]; then kill "-$told" "$leader"; fi
if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
    others=$((SLURM_JOB_NUM_NODES - 1))
    srun --nodes=$others --ntasks=$others --relative=1 \
        ${SLURM_CPUS_PER_TASK:+--cpus-per-task=$SLURM_CPUS_PER_TASK} "${nantui[@]}" join "$run" --wait &
fi

while kill -0 "$leader" 2>/dev/null; do wait "$leader"; done
wait "$leader"
status=$?

# 75: told to end, or a node was lost. What Slurm ends or requeues by itself does not run any more.
if [ "$status" = 75 ] && [ "$(squeue --noheader --job="$SLURM_JOB_ID" --format=%T)" = RUNNING ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
