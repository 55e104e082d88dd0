# Theory: the proof of Theorem 4.4 measured once, for every study that draws it. A minute on one core, no dataset.


rule measure_theory:
    input:
        source=os.path.relpath(registry.ROOT / "evaluation/theorem_4_4.py"),
    output:
        rows="results/theory/rows.csv",
        runs="results/theory/runs.json",
    log:
        "results/logs/theory.log",
    conda:
        "../../environment.yml"
    message:
        "measuring the proof of Theorem 4.4"
    shell:
        "spaced-kd theory --output {output.rows} > {log} 2>&1 || (tail -n 1 {log} >&2; exit 1)"
