# `snakemake` in this folder runs workflow/Snakefile, which says what there is to run.


include: "workflow/Snakefile"


# Snakemake takes no default target from an included file
rule study:
    default_target: True
    input:
        rules.all.input,
    localrule: True
