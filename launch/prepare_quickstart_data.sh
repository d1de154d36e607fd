#!/usr/bin/env bash
# Makes the quickstart's data: eight labelled domains of real text, about 5 MB each, from Debian packages. They are
# downloaded and unpacked below data/quickstart, never installed, so that no system setting can hide their files.
# A package that cannot be had is named and its domain left out. Done work is recognised and not repeated.
set -euo pipefail
export LC_ALL=C  # text is bytes here: the same result under every locale and every awk

cd "$(dirname "$0")/.."
data=data/quickstart
unpacked=$data/packages
text=$data/text
megabytes=5        # of text per domain, so that no domain drowns another
conclave=build/release/conclave

say() { echo "prepare_quickstart_data: $*"; }

stamp=$(cat launch/prepare_quickstart_data.sh launch/manual_page.sed | cksum)
if [ "$(cat "$data/complete" 2>/dev/null)" = "$stamp" ]; then
  say "the data in $data is complete already."
  exit 0
fi
if [ ! -x "$conclave" ]; then
  say "$conclave is missing; build it first: cmake --preset release && cmake --build --preset release" >&2
  exit 2
fi
rm -rf "$data"
mkdir -p "$unpacked" "$text"

# --- packages -------------------------------------------------------------------------------------------------------

update_lists_once() {
  apt-cache show dict-foldoc >/dev/null 2>&1 && return
  if [ "$(id -u)" -eq 0 ]; then
    apt-get update >/dev/null 2>&1 || true
  elif command -v sudo >/dev/null; then
    sudo apt-get update >/dev/null 2>&1 || true
  fi
}

# unpack PACKAGE...: each into its own folder; false when one of them cannot be had
unpack() {
  local package
  for package in "$@"; do
    [ -d "$unpacked/$package" ] && continue
    if ! (cd "$unpacked" && apt-get download "$package" >/dev/null 2>&1); then
      say "the package $package cannot be downloaded; going on without it." >&2
      return 1
    fi
    mkdir "$unpacked/$package"
    dpkg-deb -x "$unpacked/$package"_*.deb "$unpacked/$package"
  done
}

# depends_on PACKAGE PATTERN: the first package matching the pattern that PACKAGE depends on, in this release
depends_on() { apt-cache depends "$1" 2>/dev/null | grep -o "$2" | sort -u | head -n 1 || true; }

# --- from marked text to JSON lines ---------------------------------------------------------------------------------

# Reads text in which a line holding one form feed begins a document; writes one JSON object per document, up to the
# size of a domain. Documents of less than 100 bytes (stubs that point elsewhere) are left out.
to_jsonl() {
  iconv -c -f UTF-8 -t UTF-8 | tr -d '\000-\010\013\015-\037\177' |
    sed 's/[[:blank:]]*$//; s/\\/\\\\/g; s/"/\\"/g; s/\t/\\t/g' |
    awk -v limit=$((megabytes * 1000000)) '
      function finish() {
        if (size >= 100 && total < limit) { print "{\"text\": \"" document "\"}"; total += size }
        document = ""; size = 0; blank = 1
      }
      $0 == "\f" { finish(); next }
      $0 == "" { if (!blank) { document = document "\\n"; size++ } blank = 1; next }  # never two empty lines
      { document = document $0 "\\n"; size += length($0) + 1; blank = 0 }
      END { finish() }'
}

# Marks the entries of a dictionary: a line at the left margin after an empty line. Only every Nth entry is taken, so
# that a large dictionary is sampled from A to Z.
dictionary_entries() {
  awk -v every="$1" '
    /^[^ \t]/ && empty { take = ($0 !~ /^00-?database/) && (++entries % every == 0); if (take) print "\f" }
    { empty = ($0 == "") }
    take { print }'
}

# All manual pages below a folder as marked text.
manual_pages() {
  find "$1" -type f -path '*/man/*' -name '*.gz' | shuffled |
    while read -r page; do
      printf '\f\n'
      gzip -dc "$page"
    done | sed -f launch/manual_page.sed
}

# Orders lines that end in a path by a cheap hash of the file's name: the same on every machine, but mixed, so that a
# domain cut at its size still holds all kinds of files.
shuffled() {
  awk -v letters="abcdefghijklmnopqrstuvwxyz_0123456789." '{
      name = $0
      sub(/.*\//, "", name)
      hash = 7
      for (i = 1; i <= length(name); ++i) hash = (hash * 31 + index(letters, substr(name, i, 1))) % 1000003
      print hash "\t" $0
    }' | sort -k 1,1n -k 2 | cut -f 2-
}

# source_files FOLDER OUTPUT FIND-TEST...: links files of a source tree into OUTPUT, up to the size of a domain.
source_files() {
  local folder=$1 output=$2 total=0 number=0 size path
  shift 2
  mkdir -p "$output"
  find "$folder/" -type f -size +0 "$@" -printf '%s\t%p\n' | shuffled >"$output.list"
  while IFS=$'\t' read -r size path; do
    [ "$total" -lt $((megabytes * 1000000)) ] || break
    total=$((total + size)) number=$((number + 1))
    ln -s "$(realpath "$path")" "$(printf '%s/%05d' "$output" "$number")"
  done <"$output.list"
  rm "$output.list"
}

# --- domains --------------------------------------------------------------------------------------------------------

prepared=()

# tokens NAME: how many are in its token file, where each takes two bytes
tokens() { echo $(($(stat -c %s "$data/$1.bin") / 2)); }

# tokenize DOMAIN INPUT HELD-OUT OPTION...: a larger fraction of the documents is held out where they are few and long,
# because no document is ever on both sides
tokenize() {
  local domain=$1 input=$2 held_out=$3
  shift 3
  "$conclave" tokenize --replace --output "$data/$domain" --domain "$domain" --tokenizer bytes --held-out "$held_out" \
    --held-out-output "$data/$domain-validation" --empty skip --invalid-utf8 replace "$@" "$input" >"$text/$domain.log" ||
    { cat "$text/$domain.log" >&2; exit 3; }
  prepared+=("$domain")
  say "$domain: $(tokens "$domain") tokens to train on, $(tokens "$domain-validation") held out"
}

if command -v apt-get >/dev/null; then update_lists_once; fi
say "making about $megabytes MB of text for each of eight domains"

readline=$(depends_on bible-kjv 'libreadline[0-9][0-9a-z]*')
if unpack bible-kjv-text bible-kjv ${readline:+"$readline"}; then
  libraries=$(find "$unpacked" -name 'libreadline.so.*' -exec dirname {} \; | sort -u | head -n 1)
  # One verse a line, "Ge1:1 In the beginning ..."; a chapter is a document.
  LD_LIBRARY_PATH=$libraries "$unpacked/bible-kjv/usr/bin/bible" -f -p "$unpacked/bible-kjv-text/usr/lib/" \
    'Gen1:1-Rev22:21' </dev/null |
    awk -F : '$1 != chapter { print "\f"; chapter = $1 } { sub(/^[^ ]* */, ""); print }' |
    to_jsonl >"$text/english.jsonl"
  tokenize english "$text/english.jsonl" 0.02
fi
if unpack dict-foldoc dict-jargon; then
  gzip -dc <"$unpacked/dict-jargon/usr/share/dictd/jargon.dict.dz" | dictionary_entries 1 >"$text/computing.txt"
  gzip -dc <"$unpacked/dict-foldoc/usr/share/dictd/foldoc.dict.dz" | dictionary_entries 1 >>"$text/computing.txt"
  to_jsonl <"$text/computing.txt" >"$text/computing.jsonl"
  rm "$text/computing.txt"
  tokenize computing "$text/computing.jsonl" 0.02
fi
if unpack dict-gcide; then
  gzip -dc <"$unpacked/dict-gcide/usr/share/dictd/gcide.dict.dz" | dictionary_entries 7 |
    to_jsonl >"$text/dictionary.jsonl"
  tokenize dictionary "$text/dictionary.jsonl" 0.02
fi
for language in french:fr german:de japanese:ja; do
  if unpack "manpages-${language#*:}"; then
    manual_pages "$unpacked/manpages-${language#*:}" | to_jsonl >"$text/${language%:*}.jsonl"
    tokenize "${language%:*}" "$text/${language%:*}.jsonl" 0.03 --split-long 65536
  fi
done
library=$(depends_on libpython3-stdlib 'libpython3\.[0-9]*-stdlib')
if [ -n "$library" ] && unpack "$library" "${library%stdlib}minimal"; then
  mkdir -p "$unpacked/python"
  cp -r "$unpacked/$library/usr/lib" "$unpacked/${library%stdlib}minimal/usr/lib" "$unpacked/python/"
  source_files "$unpacked/python" "$text/python" -name '*.py'
  tokenize python "$text/python" 0.03 --split-long 32768
fi
source_files /usr/include "$text/c" '(' -name '*.h' -o -name '*.hpp' -o -path '*/c++/*' ')'
tokenize c "$text/c" 0.04 --split-long 32768

rm -rf "$unpacked" "$text/python" "$text/c"
echo "${prepared[@]}" >"$data/domains"
if [ ${#prepared[@]} -lt 8 ]; then
  say "${#prepared[@]} of 8 domains could be made: ${prepared[*]}. Run this again with a network for the others." >&2
  exit 0
fi
echo "$stamp" >"$data/complete"
say "done: ${#prepared[@]} domains, $(cat "$data"/*.bin | wc -c) bytes of tokens in $data."
