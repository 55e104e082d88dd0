#!/bin/bash
# A whole study as one Slurm job, for short trainings: as jobs of their own, these would wait and start for longer than they
# train. In the folder of the study, with its environment activated:
#
#   sbatch slurm/one_job.sh --configfile config/studies/demo.yaml
#
# What follows the name goes to `snakemake`. Trainings and evaluations share the CPUs, and the GPU if there is one. Each
# run still has its own files and its own log: if one fails, the others go on, and the end of the output names it. Before
# the time limit, trainings write their states, and the job requeues itself to go on.

#SBATCH --job-name=spaced_kd
#SBATCH --output=spaced_kd-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:TERM@120
# YOURS, from here: partition, resources, and a time limit of at least ten minutes
#SBATCH --partition=cpu
#SBATCH --cpus-per-task=8
#SBATCH --mem=16G
#SBATCH --time=240

again=
trap 'again=yes; scancel --signal=TERM "$SLURM_JOB_ID"' TERM # to the step below, and not to this script

if [ "${SLURM_RESTART_COUNT:-0}" -gt 0 ]; then
  snakemake --unlock "$@" # which this job's last start may have left
fi
srun --cpus-per-task="$SLURM_CPUS_PER_TASK" \
  snakemake --cores "$SLURM_CPUS_PER_TASK" --keep-going --rerun-incomplete --retries 2 "$@" &
while wait $!; status=$?; kill -0 $! 2> /dev/null; do :; done # a signal ends `wait`, too

if [ "$again" ] && [ "$status" -ne 0 ]; then
  echo "the time limit is near: the job comes back, and the study goes on"
  scontrol requeue "$SLURM_JOB_ID" && sleep 60 # until Slurm ends this script: by itself, it would end the job
fi
exit "$status"
