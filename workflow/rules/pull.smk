# `snakemake pull` gets shared results from DVC's storage, checked before they are used (see rib.records.pull).


use rule track as pull with:
    log:
        "logs/pull.log",
    params:
        cfg={"function": "rib.records.pull:pull", "wanted": CONFIG["pull"]},
