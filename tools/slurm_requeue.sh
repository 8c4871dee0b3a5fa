#!/usr/bin/env bash
# A Slurm job that resumes itself after a preemption, the end of its time, or the failure of a machine:
#   sbatch [--nodes=2 --time=24:00:00 ...] tools/slurm_requeue.sh CONFIG [arguments of train.py]
#SBATCH --job-name=allspark
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8     # one process for each GPU
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=6       # the workers of the data loader, and one more
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@300       # seconds before the end: more than a step, a validation and a checkpoint take
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
set -u
[ $# -ge 1 ] || { sed -n '2,3p' "$0" >&2; exit 2; }
cd "${SLURM_SUBMIT_DIR:-.}" || exit 2
export OMP_NUM_THREADS=1
export MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))  # two jobs on one machine do not conflict
# a preemption can also signal this shell, which has to wait for the training
trap ':' TERM
# srun starts Python itself, so the signal reaches it once; the processes may end up to 120 s apart
# srun of Slurm 22.05 to 23.02 does not read --cpus-per-task of the job
srun --cpus-per-task="${SLURM_CPUS_PER_TASK:-6}" --wait=120 python -u -m allspark_mmseg train "$@" --launcher slurm --resume
code=$?
# 75: a signal came, and a checkpoint was saved. Slurm itself requeues after the failure of a machine.
[ "$code" -eq 75 ] && scontrol requeue "$SLURM_JOB_ID"
exit "$code"
