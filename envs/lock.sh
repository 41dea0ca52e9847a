#!/bin/sh
# Pins and hashes in envs/*.txt from envs/*.in, for any platform and every Python from 3.11 on.
# torch, torchvision and the CUDA libraries they bring stay out: which build fits depends on the machine.
set -eu
cd "$(dirname "$0")"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${1:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check uv
resolve() { "$folder/venv/bin/uv" pip compile --quiet --universal --fork-strategy fewest --python-version 3.11 --no-annotate --no-header "$@"; }
without() { sed -nE "s/^($1)==.*/--no-emit-package \1/p"; }
given=$(resolve requirements-torch.txt | without 'torch|torchvision|setuptools|triton|(cuda|nvidia)-[a-z0-9-]+')
for name in "" -npm -dev -cluster; do
    # shellcheck disable=SC2086
    resolve --generate-hashes $given "requirements$name.in" >"$folder/pins"
    { echo "# Made by \`make lock\` from requirements$name.in."; cat "$folder/pins"; } >"requirements$name.txt"
    given="$given --constraints requirements$name.txt $(without '[A-Za-z0-9._-]+' <"requirements$name.txt")"
done
