# `snakemake` in this folder runs workflow/Snakefile, which says what there is to run.


include: "workflow/Snakefile"
