# Results: all rows of the study in one file, and from it each table and figure on its own.


rule collect:
    input:
        runs=expand("results/runs/{run}/run.json", run=RUNS),
        evaluations=expand(
            f"{HERE}/evaluations/{{run}}.json",
            run=[run for run in RUNS if STUDY.evaluated[run]],
        ),
    output:
        rows=f"{HERE}/rows.csv",
        runs=f"{HERE}/runs.json",
    log:
        f"results/logs/{STUDY.name}.collect.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        study=json.dumps({key: config[key] for key in sorted(config) if key not in ("tables", "figures")}),
    message:
        "collecting the rows of {STUDY.name}"
    shell:
        "spaced-kd collect - --output {output.rows} <<< {params.study:q} > {log} 2>&1 || (tail -n 1 {log} >&2; exit 1)"


rule table:
    input:
        rows=told,
        source=lambda wildcards: sources("tables", [wildcards.name]),
        claims=lambda wildcards: "config/claims.yaml" if wildcards.name == "scorecard" else [],
        reference="config/reference.csv",
    output:
        expand(
            f"{HERE}/tables/{{{{name}}}}.{{format}}",
            format=[f for f in TABLE_FORMATS if f != "html"],
        ),
        html=report(
            f"{HERE}/tables/{{name}}.html",
            caption="../report/drawn.rst",
            category="Tables",
            labels=titled,
        ),
    log:
        f"results/logs/{STUDY.name}.{{name}}.log",
    wildcard_constraints:
        name="|".join(catalog.names("tables")),
    localrule: True
    conda:
        "../../environment.yml"
    params:
        folder=lambda wildcards, output: Path(output[0]).parents[1],
        caption=lambda wildcards: catalog.plugin("tables", wildcards.name).docstring,
    message:
        "table {wildcards.name}"
    shell:
        "spaced-kd render {wildcards.name} --rows {input.rows} --output {params.folder} > {log} 2>&1 || (tail -n 1 {log} >&2; exit 1)"


rule figure:
    input:
        rows=told,
        source=lambda wildcards: sources("figures", [wildcards.name]),
        reference="config/reference.csv",
        images=shown,
    output:
        f"{HERE}/figures/{{name}}.pdf",
        png=report(
            f"{HERE}/figures/{{name}}.png",
            caption="../report/drawn.rst",
            category="Figures",
            labels=titled,
        ),
    log:
        f"results/logs/{STUDY.name}.{{name}}.log",
    wildcard_constraints:
        name="|".join(catalog.names("figures")),
    localrule: True
    conda:
        "../../environment.yml"
    params:
        folder=lambda wildcards, output: Path(output[0]).parents[1],
        caption=lambda wildcards: catalog.plugin("figures", wildcards.name).docstring,
        images=lambda wildcards, input: (f"--images {input.images}" if input.get("images") else ""),
    message:
        "figure {wildcards.name}"
    shell:
        "spaced-kd render {wildcards.name} --rows {input.rows} {params.images} --output {params.folder} > {log} 2>&1"
        " || (tail -n 1 {log} >&2; exit 1)"


# `snakemake tab06 --configfile config/demo.yaml` draws that table alone
for drawn_name in catalog.names("tables"):

    rule:
        name:
            drawn_name
        input:
            expand(f"{HERE}/tables/{drawn_name}.{{format}}", format=TABLE_FORMATS),
        localrule: True


for drawn_name in catalog.names("figures"):

    rule:
        name:
            drawn_name
        input:
            expand(f"{HERE}/figures/{drawn_name}.{{format}}", format=FIGURE_FORMATS),
        localrule: True
