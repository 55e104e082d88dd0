# Training: one job per run. Its resume state lies outside its outputs, so starting and going on are the same command.
# `update` keeps Snakemake from deleting outputs before the job: the command itself leaves a finished run alone, also when
# a job that outlived its driver comes back after another one has finished the run. It deletes the log, too, which is
# therefore a link to a hidden file beside it: lines of earlier jobs stay.


rule train:
    input:
        data=lambda wildcards: ancient(f"results/data/{RUNS[wildcards.run].data_id}.safetensors"),
        teacher=teacher,
    output:
        update("results/runs/{run}/weights.safetensors"),
        update("results/runs/{run}/predictions.safetensors"),
        update("results/runs/{run}/rows.json"),
        run=update("results/runs/{run}/run.json"),
    log:
        "results/logs/train/{run}.log",
    conda:
        "../../environment.yml"
    threads: lambda wildcards: RUNS[wildcards.run].processes
    params:
        start=start,
        words=lambda wildcards: words(wildcards.run),
        save_states_for=follow,
        together=companions,
        limit=time_limit,
        workers=workers,
    message:
        "training {wildcards.run}"
    shell:
        "ln -sf .{wildcards.run}.log {log}; echo job $(date) on $(hostname) >> {log};"
        " {params.start} train {params.words:q} --save-states-for {params.save_states_for:q} --together {params.together:q}"
        " {params.limit} {params.workers} >> {log} 2>&1"
        " || spaced-kd train {params.words:q} --finished >> {log} 2> /dev/null"  # else Snakemake would delete what is whole
        ' || (awk \'$1 == "job" {{said = ""}} $1 == "spaced-kd:" && $2 != "warning:" {{said = $0}} END {{print said ? said : $0}}\' {log} >&2;'
        " exit 1)"
