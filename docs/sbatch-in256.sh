#!/bin/bash
# Two nodes of eight GPUs for in256: `sbatch docs/sbatch-in256.sh`, from a shell in which the
# project's environment is active. Submit it once; the job goes on by itself after time limits,
# preemption and failures (ten at most) until the policy is trained.
#SBATCH --job-name=adanat-in256
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=in256-%j.log
# Ten minutes before the end the batch shell gets SIGTERM, which it hands on.
#SBATCH --signal=B:TERM@600

DATA=${DATA:?the folder that adanat prepare imagenet has made}
RUN=${RUN:?the run folder, on a disk that all nodes share}
HEAD=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

# SIGTERM: every training stage finishes its step, saves and exits with 143 (128 + 15). It must not
# go to srun, which turns it into SIGKILL for its tasks: scancel sends it to all of their processes.
# torchrun itself then exits with another code, so what to do is decided here, by the signal.
# torchrun would kill the workers after 30 seconds; a policy's update may take longer.
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=480 # seconds, of the 600 above; older PyTorch ignores it
stopped=0
trap 'stopped=1; scancel --signal=TERM "$SLURM_JOB_ID"' TERM

# A worker that dies is started again from the last checkpoint, at most ten times (--max-restarts).
srun --cpus-per-task="$SLURM_CPUS_PER_TASK" --kill-on-bad-exit=1 torchrun \
  --nnodes="$SLURM_NNODES" --nproc-per-node=8 --max-restarts=10 \
  --rdzv-backend=c10d --rdzv-endpoint="$HEAD:29500" --rdzv-id="$SLURM_JOB_ID" \
  -m adanat train in256 --data-dir "$DATA" --output-dir "$RUN" &
STEP=$!
wait "$STEP"
code=$?
if ((stopped)); then
  wait "$STEP" # the signal only ended the first wait: let the workers save
  code=$?
fi
# What torchrun cannot mend, such as a broken GPU, is tried again on other nodes.
if ((code != 0 && (stopped || ${SLURM_RESTART_COUNT:-0} < 10))); then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
