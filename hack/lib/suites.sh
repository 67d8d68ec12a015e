# Sourced by hack/test: runs suites and adds up what they say.

passed=0 failed=0
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT

# suite NAME COMMAND...: runs it and adds its last tally line; one that ends badly without saying what failed counts as one failure.
suite() {
  local name=$1 status=0 tally more=0
  shift
  echo "== $name"
  "$@" 2>&1 | tee "$logs/$name" || status=$?
  tally=$(grep -E '^[0-9]+ passed, [0-9]+ failed$' "$logs/$name" | tail -n 1 || true)
  if [ -n "$tally" ]; then
    passed=$((passed + $(cut -d' ' -f1 <<<"$tally")))
    more=$(cut -d' ' -f3 <<<"$tally")
  fi
  if [ $status -ne 0 ] && [ "$more" = 0 ]; then more=1; fi
  failed=$((failed + more))
}

# tally: the last line of it all; fails when anything failed.
tally() {
  echo "$passed passed, $failed failed"
  [ "$failed" = 0 ]
}
