# Store the text tower of each open_clip model on which a method trains with texts, and the tokens of these texts.

TEXT = f"results/{FAMILY}/text/{{model}}"
TEXT_MODELS = [
    name for name in GRID.models if any(GRID.methods[m].text != "no" for m in GRID.methods_of(name))
]


def text_inputs(w):
    """Inputs of a job that trains a run with texts, by name; none for other runs."""
    if GRID.methods[w.method].text == "no":
        return {}
    files = [f"{TEXT}/{name}.safetensors".format(model=w.model) for name in ("tower", "tokens")]
    return {"text": f"{TEXT}/manifest.json".format(model=w.model), "text_files": ancient(files)}


use rule convert_model as store_text with:
    output:
        **job_files(TEXT, inside=True, tower="tower.safetensors", tokens="tokens.safetensors"),
    log:
        f"{LOGS}/text/{{model}}.log",
    wildcard_constraints:
        model="|".join(map(re.escape, TEXT_MODELS)) or "(?!)",
