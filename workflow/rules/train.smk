# Training: one job per run. Its resume state lies outside its outputs, so starting and going on are the same command.


rule train:
    input:
        data=lambda wildcards: ancient(f"results/data/{RUNS[wildcards.run].data_id}.safetensors"),
        teacher=teacher,
    output:
        "results/runs/{run}/weights.safetensors",
        "results/runs/{run}/predictions.safetensors",
        "results/runs/{run}/rows.json",
        run="results/runs/{run}/run.json",
    log:
        "results/logs/train/{run}.log",
    conda:
        "../../environment.yml"
    params:
        words=lambda wildcards: words(wildcards.run),
        leave=follow,
        limit=time_limit,
    message:
        "training {wildcards.run}"
    shell:
        "spaced-kd train {params.words:q} --leave {params.leave:q} {params.limit} >> {log} 2>&1"
        " || (tail -n 1 {log} >&2; exit 1)"
