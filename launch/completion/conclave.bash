# Completion of the command conclave in bash: commands, options, recipe keys and the words that a key takes come from
# the command itself (conclave --complete WORD...), so they are those of the version at hand; else file names.
_conclave() {
  local -a words
  local program=$1 word cut=
  read -ra words <<<"${COMP_LINE:0:COMP_POINT}"
  [[ ${COMP_LINE:0:COMP_POINT} == *[[:space:]] ]] && words+=("")
  while ((${#words[@]} > 1)) && [[ ${words[0]} != "$program" ]]; do words=("${words[@]:1}"); done
  ((${#words[@]} > 1)) || return 0
  mapfile -t COMPREPLY < <("${program/#\~/$HOME}" --complete "${words[@]:1}" 2>/dev/null)
  # Where = ends a word for bash, what stands before it must not come again.
  word=${words[-1]}
  [[ $COMP_WORDBREAKS == *=* && $word == *=* ]] && cut=${word%"${word##*=}"}
  if ((${#COMPREPLY[@]})); then
    COMPREPLY=("${COMPREPLY[@]#"$cut"}")
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[=.] ]]; then compopt -o nospace 2>/dev/null; fi
  else
    compopt -o filenames 2>/dev/null
    mapfile -t COMPREPLY < <(compgen -f -- "${word#"$cut"}")
  fi
  return 0
}
complete -F _conclave conclave
