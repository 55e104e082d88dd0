# Data: each dataset is decoded once into verified uint8 arrays, and its test images are corrupted once.


rule prepare:
    output:
        "results/data/{data}.safetensors",
    log:
        "results/logs/prepare/{data}.log",
    conda:
        "../../environment.yml"
    params:
        words=lambda wildcards: [word for word in words(DATA[wildcards.data].id) if word.startswith("dataset")],
        source=STUDY.data,
    message:
        "decoding {wildcards.data}"
    shell:
        "spaced-kd prepare {params.words:q} --source {params.source:q} > {log} 2>&1 || (tail -n 1 {log} >&2; exit 1)"


rule corrupt:
    input:
        ancient("results/data/{data}.safetensors"),
    output:
        "results/data/{data}.corrupted-{images}{asked}.safetensors",
    log:
        "results/logs/prepare/{data}.corrupted-{images}{asked}.log",
    conda:
        "../../environment.yml"
    threads: 8
    params:
        words=lambda wildcards: [
            *(word for word in words(DATA[wildcards.data].id) if word.startswith("dataset")),
            *corruption_words(wildcards.asked),
        ],
    message:
        "corrupting {wildcards.images} test images of {wildcards.data}"
    shell:
        "spaced-kd prepare {params.words:q} --corrupt {wildcards.images} --workers {threads} > {log} 2>&1"
        " || (tail -n 1 {log} >&2; exit 1)"
