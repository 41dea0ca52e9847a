# `snakemake pull` gets shared results from the storage of DVC; see rib.records.pull for what it checks.


use rule status as pull with:
    log:
        "logs/pull.log",
    conda:
        "../../envs/share.yaml"
    params:
        cfg={"function": "rib.records.pull:pull", "wanted": CONFIG["pull"]},
