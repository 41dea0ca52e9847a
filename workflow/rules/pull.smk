# `snakemake pull` gets shared results from DVC's storage, checked before they are used (see
# rib.records.pull).

from rib.records.settings import PullSettings

WANTED = [CONFIG["pull"]] if isinstance(CONFIG["pull"], str) else CONFIG["pull"]


rule pull:
    log:
        "logs/pull.log",
    localrule: True
    conda:
        "../../envs/share.yaml"
    params:
        cfg=to_params(PullSettings(wanted=WANTED)),
    script:
        "../scripts/pull.py"
