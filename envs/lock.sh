#!/bin/sh
# Pins and hashes in envs/*.txt from envs/*.in, for any platform and every Python from 3.11 on.
# torch, torchvision and the CUDA libraries they bring stay out: which build fits depends on the machine.
set -eu
cd "$(dirname "$0")"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${1:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check uv
resolve() { "$folder/venv/bin/uv" pip compile --quiet --universal --python-version 3.11 --no-annotate --no-header "$@"; }
names() { sed -nE "s/^($1)==.*/\1/p" "$2"; }

# lock NAME FILES: pins of requirements-NAME.in that neither FILES nor torch's own requirements give.
lock() {
    name=$1
    shift
    given=$(sed 's/^/--no-emit-package /' "$folder/torch")
    for file in "$@"; do
        given="$given --constraints $file $(names '[A-Za-z0-9._-]+' "$file" | sed 's/^/--no-emit-package /')"
    done
    # shellcheck disable=SC2086
    resolve --generate-hashes $given "requirements$name.in" >"$folder/pins"
    { echo "# Made by \`make lock\` from requirements$name.in."; cat "$folder/pins"; } >"$folder/new"
    mv "$folder/new" "requirements$name.txt"
}

resolve requirements-torch.txt >"$folder/all"
names 'torch|torchvision|setuptools|triton|(cuda|nvidia)-[a-z0-9-]+' "$folder/all" >"$folder/torch"
lock ""
lock -npm requirements.txt
lock -dev requirements.txt
lock -cluster requirements.txt requirements-dev.txt
