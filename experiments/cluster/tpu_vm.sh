#!/bin/bash
# A sweep on a Cloud TPU VM or a slice of many hosts, from creation to deletion:
#   PROJECT=me ZONE=us-west4-a TYPE=v5litepod-16 OUTPUT=gs://bucket/camri \
#     bash experiments/cluster/tpu_vm.sh --dataset cifar10 --preset fast
# On a slice every host runs the same command: --distributed asks JAX which of them it is,
# and each trains a share. The TPU is deleted however this ends.
set -euo pipefail

: "${PROJECT:?names the project}" "${ZONE:?names the zone}" "${OUTPUT:?gs://...}"
: "${TYPE:=v5litepod-4}" "${NAME:=camri-sweep-$(date +%s)-$$}" "${VERSION:=v2-alpha-tpuv5-lite}"
tpu=(gcloud compute tpus tpu-vm)
where=(--project "$PROJECT" --zone "$ZONE")

# Another run's is neither used nor deleted.
if "${tpu[@]}" describe "$NAME" "${where[@]}" >/dev/null 2>&1; then
  echo "error: there is a TPU called $NAME: NAME must be another" >&2
  exit 2
fi
remove() { rm -f camri.tgz; "${tpu[@]}" delete "$NAME" "${where[@]}" --quiet; }
trap remove EXIT
"${tpu[@]}" create "$NAME" "${where[@]}" \
  --accelerator-type "$TYPE" --version "$VERSION" --spot

git archive --format tar.gz --output camri.tgz HEAD
# Images may have a Python of their own that is too old: uv brings one.
"${tpu[@]}" scp camri.tgz "$NAME:" "${where[@]}" --worker all
"${tpu[@]}" ssh "$NAME" "${where[@]}" --worker all --command '
  mkdir -p camri && tar -xzf camri.tgz -C camri &&
  curl -LsSf https://astral.sh/uv/install.sh | sh &&
  ~/.local/bin/uv venv --python 3.12 venv &&
  ~/.local/bin/uv pip install -q --python venv "./camri[tpu,experiments,remote]"'
words=$(printf ' %q' --output "$OUTPUT" "$@")
"${tpu[@]}" ssh "$NAME" "${where[@]}" --worker all \
  --command "JAX_PLATFORMS=tpu venv/bin/camri sweep --distributed$words"
