# Evaluation: one job per network does all its measurements; each one's rows are cached beside the run.


rule evaluate:
    input:
        weights="results/runs/{run}/weights.safetensors",
        data=lambda wildcards: ancient(f"results/data/{RUNS[wildcards.run].data_id}.safetensors"),
        corrupted=lambda wildcards: [ancient(path) for path in corrupted(PARTS[wildcards.study], wildcards.run)],
        sources=lambda wildcards: sources("evaluations", PARTS[wildcards.study].evaluated[wildcards.run]),
    output:
        "results/{study}/evaluations/{run}.json",
    log:
        "results/logs/evaluate/{study}/{run}.log",
    conda:
        "../../environment.yml"
    params:
        words=lambda wildcards: evaluation_words(wildcards.study, wildcards.run),
    message:
        "evaluating {wildcards.run}"
    shell:
        "spaced-kd evaluate {wildcards.run} {params.words:q} --output {output} > {log} 2>&1"
        " || (tail -n 1 {log} >&2; exit 1)"
