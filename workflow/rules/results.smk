# Results: all rows of the study, or of each of its experiments, in one file; from it each table and figure on its own.


rule collect:
    input:
        runs=lambda wildcards: [f"results/runs/{run}/run.json" for run in PARTS[wildcards.study].evaluated],
        evaluations=lambda wildcards: [
            f"results/{wildcards.study}/evaluations/{run}.json"
            for run, names in PARTS[wildcards.study].evaluated.items()
            if names
        ],
    output:
        rows="results/{study}/rows.csv",
        runs="results/{study}/runs.json",
    log:
        "results/logs/{study}.collect.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        study=described,
    message:
        "collecting the rows of {wildcards.study}"
    shell:
        "spaced-kd collect - --output {output.rows} <<< {params.study:q} > {log} 2>&1 || (tail -n 1 {log} >&2; exit 1)"


rule table:
    input:
        rows=told,
        source=lambda wildcards: sources("tables", [wildcards.name]),
        claims=judging,
        reference=os.path.relpath(presets.REFERENCE),
    output:
        expand(
            "results/{{study}}/tables/{{name}}.{format}",
            format=[f for f in FORMATS["tables"] if f != "html"],
        ),
        html=report(
            "results/{study}/tables/{name}.html",
            caption="../report/drawn.rst",
            category="Tables",
            labels=titled,
        ),
    log:
        "results/logs/{study}.{name}.log",
    wildcard_constraints:
        name="|".join(registry.names("tables")),
    localrule: True
    conda:
        "../../environment.yml"
    params:
        folder=lambda wildcards, output: Path(output[0]).parents[1],
        caption=lambda wildcards: registry.plugin("tables", wildcards.name).docstring,
    message:
        "table {wildcards.name}"
    shell:
        "spaced-kd render {wildcards.name} --rows {input.rows} --output {params.folder} > {log} 2>&1"
        " || (tail -n 1 {log} >&2; exit 1)"


rule figure:
    input:
        rows=told,
        source=lambda wildcards: sources("figures", [wildcards.name]),
        claims=judging,
        reference=os.path.relpath(presets.REFERENCE),
        images=shown,
    output:
        "results/{study}/figures/{name}.pdf",
        png=report(
            "results/{study}/figures/{name}.png",
            caption="../report/drawn.rst",
            category="Figures",
            labels=titled,
        ),
    log:
        "results/logs/{study}.{name}.log",
    wildcard_constraints:
        name="|".join(registry.names("figures")),
    localrule: True
    conda:
        "../../environment.yml"
    params:
        folder=lambda wildcards, output: Path(output[0]).parents[1],
        caption=lambda wildcards: registry.plugin("figures", wildcards.name).docstring,
        given=lambda wildcards, input: f"--images {input.images}" if input.get("images") else f"--rows {input.rows}",
    message:
        "figure {wildcards.name}"
    shell:
        "spaced-kd render {wildcards.name} {params.given} --output {params.folder} > {log} 2>&1"
        " || (tail -n 1 {log} >&2; exit 1)"


rule page:
    input:
        rows=collected(STUDY.name),
        claims=[os.path.relpath(path) for path in (presets.CLAIMS, presets.RECIPES / "paper.yaml")],
        reference=os.path.relpath(presets.REFERENCE),
    output:
        page=report(
            f"results/{STUDY.name}/results.html",
            caption="../report/page.rst",
            category="Verdicts",
            labels={"title": "All verdicts, with the runs behind them"},
        ),
        summary=f"results/{STUDY.name}/verdicts.rst",
    log:
        f"results/logs/{STUDY.name}.page.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        title=STUDY.name,
    message:
        "page of results"
    shell:
        "spaced-kd site {input.rows} --output {output.page} --summary {output.summary} --title {params.title:q}"
        " > {log} 2>&1 || (tail -n 1 {log} >&2; exit 1)"


# `snakemake all notebooks` runs them on the study; with `--report` after it, the report has them too
rule notebook:
    input:
        rows=collected(STUDY.name),
        notebook=lambda wildcards: os.path.relpath(NOTEBOOKS / f"{wildcards.name}.ipynb"),
    output:
        report(
            f"results/{STUDY.name}/notebooks/{{name}}.html",
            caption="../report/notebook.rst",
            category="Notebooks",
            labels={"title": "{name}"},
        ),
    log:
        f"results/logs/{STUDY.name}.{{name}}.notebook.log",
    wildcard_constraints:
        name="|".join(path.stem for path in NOTEBOOKS.glob("*.ipynb")) or "none",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        folder=lambda wildcards, output: Path(output[0]).parent,
        study=STUDY.name,
    message:
        "notebook {wildcards.name}"
    shell:
        "STUDY={params.study} python -m nbconvert --execute --to html --output-dir {params.folder} {input.notebook}"
        " > {log} 2>&1 || (tail -n 1 {log} >&2; exit 1)"


rule notebooks:
    input:
        [f"results/{STUDY.name}/notebooks/{path.stem}.html" for path in sorted(NOTEBOOKS.glob("*.ipynb"))],
    localrule: True


# `snakemake tab06 --configfile config/studies/paper.yaml` draws that table alone, and runs what its experiment needs
for drawn_kind, drawn_name in [(kind, name) for kind in FORMATS for name in registry.names(kind)]:

    rule:
        name:
            drawn_name
        input:
            files(drawn_kind, drawn_name),
        localrule: True
