#!/usr/bin/env bash
# What people do with curl. `curl.sh URL`
set -euo pipefail
url=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

fail() {
    echo "curl: $1" >&2
    exit 1
}
same() { [ "$1" = "$2" ] || fail "$3: \"$1\" instead of \"$2\""; }
hash_of() { sha256sum <"$1" | cut -d' ' -f1; }

head -c 300000 /dev/urandom >block
name=$(hash_of block)

# A file, with its length, sent when the server asks for it. (To `/` curl's -T adds the name of the file.)
curl -sS --fail -v -X PUT -H 'Expect: 100-continue' --data-binary @block "$url/" >answer 2>log
same "$(cat answer)" "$name" "PUT of a file"
grep -q '< HTTP/1.1 100 Continue' log || fail "no 100 Continue"
# From a pipe, in chunks.
same "$(cat block | curl -sS --fail -v -T - "$url/" 2>log)" "$name" "PUT from a pipe"
grep -qi '> Transfer-Encoding: chunked' log || fail "it was not sent in chunks"
same "$(curl -sS --fail --data-binary @block "$url/")" "$name" "POST"
same "$(curl -sS -o body -w '%{http_code}' -T block "$url/$name")" 200 "PUT by name"
same "$(curl -sS -o body -w '%{http_code}' -T block "$url/${name/?/x}")" 400 "PUT by a bad name"

curl -sS --fail -o copy "$url/$name"
cmp block copy || fail "GET"
# A part, and the rest behind what is there already.
curl -sS --fail -r 1000-1999 -o part "$url/$name"
cmp part <(tail -c +1001 block | head -c 1000) || fail "a range"
head -c 123456 block >resumed
curl -sS --fail -C - -o resumed "$url/$name"
cmp block resumed || fail "resuming"
same "$(curl -sS -o whole -w '%{http_code}' -r 0-0,5-6 "$url/$name")" 200 "several ranges"
cmp block whole || fail "several ranges"
same "$(curl -sS -o body -w '%{http_code}' -r 400000- "$url/$name")" 416 "a range behind the end"
# Only if it is not there yet, as curl keeps tags.
curl -sS --fail --etag-save tag -o first "$url/$name"
same "$(curl -sS -o second -w '%{http_code}' --etag-compare tag "$url/$name")" 304 "a block that is there"
same "$(curl -sS --head -w '%{http_code}' -o head "$url/$name")" 200 "HEAD"
grep -qi '^content-length: 300000' head || fail "HEAD without the length"

# Many requests over one connection.
curl -sS --fail -w '%{num_connects}\n' -o a "$url/$name" -o b "$url/$name" -o c "$url/-/health" >connections
same "$(tr '\n' ' ' <connections)" "1 0 0 " "connections"
same "$(curl -sS --http1.0 --fail "$url/-/health")" ok "HTTP/1.0"

printf '%s\n%s\n' "$name" "$(printf nothing | sha256sum | cut -d' ' -f1)" >names
same "$(curl -sS --fail -H 'Content-Type: text/plain' --data-binary @names "$url/-/missing")" "$(tail -n 1 names)" "missing"
same "$(curl -sS -o body -w '%{http_code}' --data-binary @names "$url/-/missing")" 415 "names as a form"
same "$(curl -sS --fail "$url/-/blocks")" "$name 300000" "the list"
same "$(curl -sS -X OPTIONS -o body -w '%{http_code}' "$url/$name")" 204 "OPTIONS"
head -c 600000 /dev/urandom >large
same "$(curl -sS -o body -w '%{http_code}' -X PUT --data-binary @large "$url/")" 413 "a file that is too large"
same "$(curl -sS -X DELETE -o body -w '%{http_code}' "$url/$name")" 204 "DELETE"
same "$(curl -sS -o body -w '%{http_code}' "$url/$name")" 404 "what was deleted"
