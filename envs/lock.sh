#!/bin/sh
# Pins in envs/*.txt from envs/*.in, by installing them into a new environment and asking it what it got.
# torch and torchvision stay ranges: which build fits (CPU, CUDA version) depends on the machine.
set -eu
cd "$(dirname "$0")"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${1:-python3}" -m venv "$folder/venv"
pip="$folder/venv/bin/python -m pip --disable-pip-version-check"
freeze() { $pip freeze --all | grep -viE '^(torch|torchvision|setuptools|nvidia-.*|cuda-.*|triton)==' | sort -f; }

$pip install --quiet -r requirements.in
{ echo '# Made by `make lock` from requirements.in.'; grep -E '^torch' requirements.in; freeze; } > "$folder/run"
$pip install --quiet -c "$folder/run" -r requirements-dev.in
{ echo '# Made by `make lock` from requirements-dev.in; what requirements.txt pins already is left out.'; freeze | grep -vxFf "$folder/run"; } > "$folder/dev"
$pip install --quiet -c "$folder/run" -c "$folder/dev" -r requirements-cluster.in
{ echo '# Made by `make lock` from requirements-cluster.in; what the others pin already is left out.'; freeze | grep -vxFf "$folder/run" | grep -vxFf "$folder/dev"; } > "$folder/cluster"
mv "$folder/cluster" requirements-cluster.txt
mv "$folder/run" requirements.txt
mv "$folder/dev" requirements-dev.txt
