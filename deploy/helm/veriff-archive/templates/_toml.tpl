{{/*
The configuration as TOML. Helm's own toToml writes every number with a point, because values pass through JSON, and the
program rightly refuses `tries = 6.0`.
*/}}

{{- define "va.toml.key" -}}
{{- if regexMatch "^[A-Za-z0-9_-]+$" . }}{{ . }}{{ else }}{{ mustToRawJson . }}{{ end -}}
{{- end -}}

{{/* Of key and value. JSON's strings are TOML's. */}}
{{- define "va.toml.value" -}}
{{- $key := index . 0 -}}
{{- $value := index . 1 -}}
{{- if kindIs "map" $value -}}
{{- $fields := list -}}
{{- range $name, $field := $value -}}
{{- $fields = append $fields (printf "%s = %s" (include "va.toml.key" $name) (include "va.toml.value" (list $name $field))) -}}
{{- end -}}
{ {{ join ", " $fields }} }
{{- else if kindIs "slice" $value -}}
{{- $items := list -}}
{{- range $value -}}
{{- $items = append $items (include "va.toml.value" (list "" .)) -}}
{{- end -}}
[{{ join ", " $items }}]
{{- else if kindIs "string" $value -}}
{{ mustToRawJson $value }}
{{- else if kindIs "bool" $value -}}
{{ $value }}
{{- else if eq $key "max_requests_per_second" -}}
{{ printf "%.6f" (float64 $value) | trimAll "0" | trimSuffix "." | include "va.toml.float" }}
{{- else if eq (float64 (int64 $value)) (float64 $value) -}}
{{ int64 $value }}
{{- else -}}
{{ $value }}
{{- end -}}
{{- end -}}

{{/* A number without its outer zeros, with them again where TOML wants a digit. */}}
{{- define "va.toml.float" -}}
{{- $text := . -}}
{{- if or (not $text) (hasPrefix "." $text) }}{{ $text = printf "0%s" $text }}{{ end -}}
{{- if not (contains "." $text) }}{{ $text = printf "%s.0" $text }}{{ end -}}
{{ $text }}
{{- end -}}

{{/* Of a path and a map: its own keys, then its tables. What says where a secret is, and `when`, is one line. */}}
{{- define "va.toml.table" -}}
{{- $path := index . 0 -}}
{{- $table := index . 1 -}}
{{- $lines := list -}}
{{- $tables := list -}}
{{- range $key, $value := $table -}}
{{- $name := include "va.toml.key" $key -}}
{{- $inner := ternary (printf "%s.%s" $path $name) $name (ne $path "") -}}
{{- if and (kindIs "map" $value) (not (has $key (list "api_key" "shared_secret" "private_key" "when"))) -}}
{{- $text := include "va.toml.table" (list $inner $value) -}}
{{- /* A table of nothing but tables needs no line of its own. */ -}}
{{- $head := ternary "" (printf "\n[%s]\n" $inner) (hasPrefix "\n" $text) -}}
{{- $tables = append $tables (print $head $text) -}}
{{- else if and (kindIs "slice" $value) $value (kindIs "map" (first $value)) -}}
{{- range $value -}}
{{- $tables = append $tables (printf "\n[[%s]]\n%s" $inner (include "va.toml.table" (list $inner .))) -}}
{{- end -}}
{{- else if not (kindIs "invalid" $value) -}}
{{- $lines = append $lines (printf "%s = %s\n" $name (include "va.toml.value" (list $key $value))) -}}
{{- end -}}
{{- end -}}
{{- join "" $lines }}{{ join "" $tables }}
{{- end -}}

{{/* Of the root, the share of the rate and the number of workers, and whether the alarm is left to the final check. */}}
{{- define "va.config" -}}
{{- $root := index . 0 -}}
{{- $share := index . 1 | float64 -}}
{{- $workers := index . 2 | float64 -}}
{{- $quiet := index . 3 -}}
{{- $config := deepCopy $root.Values.config -}}
{{- range $name, $integration := $config.integrations -}}
{{- $rate := get $integration "max_requests_per_second" | default 5.0 | float64 -}}
{{- $_ := set $integration "max_requests_per_second" (divf (mulf $rate $share) $workers) -}}
{{- end -}}
{{- if $root.Values.ledger.urlSecret.name -}}
{{- $_ := unset $config "ledger" -}}
{{- end -}}
{{- with $root.Values.signing -}}
{{- if .existingSecret -}}
{{- $key := dict "private_key" (dict "file" (printf "/run/secrets/veriff-archive-signing/%s" .key)) -}}
{{- $_ := set $config "signing" (merge ($config.signing | default dict) $key) -}}
{{- end -}}
{{- end -}}
{{- if $quiet -}}
{{- $_ := set $config "limits" (merge (dict "horizon_alarm" "1s") ($config.limits | default dict)) -}}
{{- end -}}
{{- include "va.toml.table" (list "" $config) | trimPrefix "\n" -}}
{{- end -}}
