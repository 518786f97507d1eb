#!/bin/bash
# One training run on several nodes, which is requeued and resumed when its time limit is reached:
#     sbatch --account research --partition gpu profiles/slurm/train.sh video-small-s1 data.folder=DIR run.strategy=fsdp
#SBATCH --job-name=ebwm
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@600
#SBATCH --requeue
#SBATCH --open-mode=append
set -u
export EBWM_RUNS="${EBWM_RUNS:-runs}/job-$SLURM_JOB_ID"
run="$EBWM_RUNS/001"
if [ -d "$run/checkpoints" ]; then
  words=(--resume "$run")
else
  words=("$@")
fi
nodes=${SLURM_NNODES:-1}
processes=${SLURM_GPUS_ON_NODE:-1}
head=$(scontrol show hostnames "${SLURM_JOB_NODELIST:-localhost}" | head -n 1)
srun torchrun --nnodes "$nodes" --nproc-per-node "$processes" --rdzv-backend c10d --rdzv-id "$SLURM_JOB_ID" \
  --rdzv-endpoint "$head:${MASTER_PORT:-29500}" -m ebwm train "${words[@]}"
code=$?
if [ "$code" -ne 0 ] && [ -f "$run/events.jsonl" ] && tail -n 1 "$run/events.jsonl" | grep -q '"stopped"'; then
  echo "stopped and saved; the job is requeued and resumes the run"
  exec scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
