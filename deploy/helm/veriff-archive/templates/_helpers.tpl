{{- define "va.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 32 | trimSuffix "-" -}}
{{- end -}}

{{/* Short, because the longest name behind it has 31 characters more, and a Job's name may have 63. */}}
{{- define "va.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 32 | trimSuffix "-" -}}
{{- else if contains (include "va.name" .) .Release.Name -}}
{{- .Release.Name | trunc 32 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "va.name" .) | trunc 32 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "va.selectorLabels" -}}
app.kubernetes.io/name: {{ include "va.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "va.labels" -}}
{{ include "va.selectorLabels" . }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | trunc 63 | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "va.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "va.archiver" -}}
{{- $account := .Values.serviceAccounts.archiver -}}
{{- if $account.create }}{{ $account.name | default (printf "%s-archiver" (include "va.fullname" .)) }}{{ else }}{{ $account.name | default "default" }}{{ end -}}
{{- end -}}

{{- define "va.auditor" -}}
{{- $account := .Values.serviceAccounts.auditor -}}
{{- if $account.create }}{{ $account.name | default (printf "%s-auditor" (include "va.fullname" .)) }}{{ else }}{{ $account.name | default "default" }}{{ end -}}
{{- end -}}

{{/* The URL of the ledger as the values give it; a URL in a Secret is PostgreSQL's. */}}
{{- define "va.ledgerUrl" -}}
{{- with .Values.config.ledger }}{{ .url | default "" }}{{ end -}}
{{- end -}}

{{/* "true" or empty. */}}
{{- define "va.isPostgres" -}}
{{- if or .Values.ledger.urlSecret.name (hasPrefix "postgres" (include "va.ledgerUrl" .)) -}}true{{- end -}}
{{- end -}}

{{/* The port of the metrics, or empty. */}}
{{- define "va.metricsPort" -}}
{{- with .Values.config.telemetry }}{{ with .prometheus_listen }}{{ splitList ":" . | last }}{{ end }}{{ end -}}
{{- end -}}

{{/* The port of the collector, or empty. */}}
{{- define "va.otlpPort" -}}
{{- with .Values.config.telemetry -}}
{{- with .otlp_endpoint -}}
{{- $url := urlParse . -}}
{{- if regexMatch ":[0-9]+$" $url.host -}}
{{- splitList ":" $url.host | last -}}
{{- else -}}
{{- ternary "443" "80" (eq $url.scheme "https") -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* How many pods of the queue's Deployment there may be. */}}
{{- define "va.queueWorkers" -}}
{{- .Values.queue.maxReplicas | default .Values.queue.replicas | int -}}
{{- end -}}

{{/* What no schema can check: combinations that would break a promise. Called once, by the ConfigMap. */}}
{{- define "va.refuse" -}}
{{- $values := .Values -}}
{{- $writers := 0 -}}
{{- $shares := 0.0 -}}
{{- if $values.nightly.enabled -}}
{{- $writers = add $writers 1 -}}
{{- $shares = addf $shares $values.nightly.rateShare -}}
{{- $sources := compact (list (ternary "backlog" "" $values.nightly.source.backlog) $values.nightly.source.sessions $values.nightly.source.queue) -}}
{{- if ne (len $sources) 1 -}}
{{- fail "nightly.source: exactly one of backlog, sessions and queue" -}}
{{- end -}}
{{- if $values.nightly.add.sessions -}}
{{- if not $values.nightly.source.backlog -}}
{{- fail "nightly.add puts a list into the backlog: it needs nightly.source.backlog" -}}
{{- end -}}
{{- $writers = add $writers 1 -}}
{{- end -}}
{{- end -}}
{{- if $values.backfill.enabled -}}
{{- $writers = add $writers (int $values.backfill.workers) -}}
{{- $shares = addf $shares $values.backfill.rateShare -}}
{{- end -}}
{{- if $values.queue.enabled -}}
{{- if not $values.queue.url -}}
{{- fail "queue.url: the URL of the SQS queue is needed" -}}
{{- end -}}
{{- $writers = add $writers (int (include "va.queueWorkers" .)) -}}
{{- $shares = addf $shares $values.queue.rateShare -}}
{{- end -}}
{{- if $values.add.enabled -}}
{{- if not $values.add.sessions -}}
{{- fail "add.sessions: the list to add is needed" -}}
{{- end -}}
{{- $writers = add $writers 1 -}}
{{- end -}}
{{- if and (not (include "va.isPostgres" .)) (gt (int $writers) 1) -}}
{{- fail (printf "a SQLite ledger serves one worker, and these values start %d: use PostgreSQL (config.ledger.url or ledger.urlSecret), or one worker (nightly, add, backfill.workers, queue.replicas)" (int $writers)) -}}
{{- end -}}
{{- if gt $shares 1.0001 -}}
{{- fail (printf "the rateShare of all that is enabled is %v together: more than 1 would exceed max_requests_per_second" $shares) -}}
{{- end -}}
{{- end -}}
