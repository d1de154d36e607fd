#!/usr/bin/env bash
# Writes the manual page conclave(1) in roff to standard output, from what the command says of itself with --help:
#   bash launch/make_manual_page.sh CONCLAVE
set -euo pipefail
conclave=$1

# Text as roff prints it unchanged: backslashes and minus signs are escaped, a dot that begins a line is hidden.
verbatim() { sed -e 's/\\/\\e/g' -e 's/-/\\-/g' -e 's/^['\''.]/\\\&&/'; }
as_it_stands() {
  echo '.EX'
  verbatim
  echo '.EE'
}

help=$("$conclave" --help)
version=$("$conclave" --version | cut -d ' ' -f 2)
printf '.TH CONCLAVE 1 "" "Conclave %s" "User Commands"\n' "$version"
cat <<'TEXT'
.SH NAME
conclave \- pretrains mixture\-of\-experts transformers over MPI
.SH SYNOPSIS
.B conclave
.I COMMAND
.RI [ RECIPE.yaml ]
.RI [ key.path=value " ...]"
.br
.B mpirun \-n
.I N
.B conclave train
.I RECIPE.yaml
.RI [ key.path=value " ...]"
.SH DESCRIPTION
A recipe says what is trained, on which text, on which layout of ranks and for how long;
.B conclave validate
prints every key of it with its meaning and default.
Any key can be changed on the command line by
.IR key.path=value ,
where the value is read as YAML.
.SH COMMANDS
TEXT
sed -n '/^commands:/,/^$/{/^commands:/d;/^$/d;p}' <<<"$help" | as_it_stands
for command in $("$conclave" --complete '' | grep -v -e '^-' -e '^help$'); do
  echo ".SS conclave $command"
  "$conclave" "$command" --help | as_it_stands
done
echo '.SH EXIT STATUS'
sed -n '/^exit codes:/,/^$/p' <<<"$help" | sed 's/^exit codes: *//; s/^ *//' | verbatim
cat <<'TEXT'
.SH ENVIRONMENT
.TP
.B OMP_NUM_THREADS
threads of a rank, where the recipe's training.threads is 0; without it the node's cores are shared evenly
.TP
.B GOMP_SPINCOUNT, OMP_WAIT_POLICY
how long waiting threads spin; where neither is set, conclave chooses a short spin
.SH FILES
Below the recipe's output directory:
.TP
.I recipe.yaml
the recipe with every default written out
.TP
.I metrics.jsonl
one JSON object for each logged step and evaluation
.TP
.I experts.h5
which expert was chosen how often, by step and layer; an index over
.I experts/
.TP
.I log.txt
what the terminal showed
.TP
.I checkpoints/
directories that are there whole or not at all
TEXT
