#!/bin/sh
# The whole study by the shipped commands: study.sh FILE.toml OUT. Stopped in whatever way, the same command resumes it.
set -eu
sweep=$1 out=$2 results=$2/results.jsonl

nfnet-eqx scaling sweep "$sweep" --out "$out"

laws=
for family in NFNet ViT; do
    for form in power parametric repeated; do
        printf '\n== %s, form %s\n' "$family" "$form"
        # What the runs cannot carry at all is refused in a line; the others go on.
        nfnet-eqx scaling fit "$results" --family "$family" --form "$form" --save "$out/$family-$form.json" ||
            rm -f "$out/$family-$form.json"
    done
    if [ -e "$out/$family-power.json" ]; then
        laws="$laws $out/$family-power.json"
    fi
    if [ -e "$out/$family-parametric.json" ]; then
        nfnet-eqx scaling plot "$results" --what isoflop --fit "$out/$family-parametric.json" --save "$out/isoflop-$family.png"
    fi
done
# shellcheck disable=SC2086 # a word for each file
nfnet-eqx scaling plot "$results" ${laws:+--fit $laws} --save "$out/loss.png"
nfnet-eqx scaling plot "$results" --what learning-rate --save "$out/learning-rates.png"

printf '\n== NFNet against ViT\n'
nfnet-eqx scaling compare "$results" --a NFNet --b ViT --save "$out/compare.png"
