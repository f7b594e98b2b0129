{{/*
The template of every pod. Takes a dict: root, component, file (the key of the ConfigMap), account, args (a list),
resources (optional), restartPolicy, probe (bool), configMap (its name; optional), annotations (optional).
*/}}
{{- define "va.pod" -}}
{{- $root := .root -}}
{{- $values := $root.Values -}}
metadata:
  labels:
    {{- include "va.selectorLabels" $root | nindent 4 }}
    app.kubernetes.io/component: {{ .component }}
    {{- with $values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with mergeOverwrite (deepCopy $values.podAnnotations) (.annotations | default dict) }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  restartPolicy: {{ .restartPolicy }}
  serviceAccountName: {{ .account }}
  # The program never talks to Kubernetes; IRSA and Pod Identity bring tokens of their own.
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ add (int $values.drainTimeoutSeconds) 10 }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    fsGroup: 65532
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile:
      type: RuntimeDefault
  {{- with $values.image.pullSecrets }}
  imagePullSecrets:
    {{- range . }}
    - name: {{ . }}
    {{- end }}
  {{- end }}
  containers:
    - name: veriff-archive
      args:
        {{- toYaml .args | nindent 8 }}
      {{- include "va.container" . | nindent 6 }}
      {{- if include "va.metricsPort" $root }}
      ports:
        - name: metrics
          containerPort: {{ include "va.metricsPort" $root }}
      {{- if .probe }}
      livenessProbe:
        httpGet:
          path: /healthz
          port: metrics
        initialDelaySeconds: 10
        periodSeconds: 20
        timeoutSeconds: 5
        failureThreshold: 6
      {{- end }}
      {{- end }}
  volumes:
    - name: config
      configMap:
        name: {{ .configMap | default (include "va.fullname" $root) }}
    - name: tmp
      emptyDir:
        sizeLimit: 2Gi
    {{- if $values.secrets.existingSecret }}
    - name: secrets
      secret:
        secretName: {{ $values.secrets.existingSecret }}
        defaultMode: 0440
    {{- end }}
    {{- if include "va.checks" . }}
    - name: public-key
      configMap:
        name: {{ $values.signing.publicKeyConfigMap.name }}
        items:
          - key: {{ $values.signing.publicKeyConfigMap.key }}
            path: public.pem
    {{- end }}
    {{- if include "va.signs" . }}
    - name: signing
      secret:
        secretName: {{ $values.signing.existingSecret }}
        defaultMode: 0440
        items:
          - key: {{ $values.signing.key }}
            path: {{ $values.signing.key }}
    {{- end }}
    {{- if $values.ledger.caConfigMap.name }}
    - name: ledger-ca
      configMap:
        name: {{ $values.ledger.caConfigMap.name }}
        items:
          - key: {{ $values.ledger.caConfigMap.key }}
            path: ca.pem
    {{- end }}
    {{- if not (include "va.isPostgres" $root) }}
    - name: ledger
      {{- if $values.ledger.sqlite.persistence.enabled }}
      persistentVolumeClaim:
        claimName: {{ $values.ledger.sqlite.persistence.existingClaim | default (printf "%s-ledger" (include "va.fullname" $root)) }}
      {{- else }}
      emptyDir:
        sizeLimit: {{ $values.ledger.sqlite.persistence.size }}
      {{- end }}
    {{- end }}
  {{- with $values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.topologySpreadConstraints }}
  topologySpreadConstraints:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
{{- end -}}

{{/* "true" or empty: whether a pod gets the key that checks, which is for those that audit. */}}
{{- define "va.checks" -}}
{{- if and .root.Values.signing.publicKeyConfigMap.name (eq .component "audit") -}}true{{- end -}}
{{- end -}}

{{/* "true" or empty: whether a pod gets the key that signs, which is for those that archive. */}}
{{- define "va.signs" -}}
{{- if and .root.Values.signing.existingSecret (eq .account (include "va.archiver" .root)) -}}true{{- end -}}
{{- end -}}

{{/* What all containers have. */}}
{{- define "va.container" -}}
{{- $values := .root.Values -}}
image: {{ include "va.image" .root }}
imagePullPolicy: {{ $values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  runAsNonRoot: true
  capabilities:
    drop: [ALL]
env:
  - name: VERIFF_ARCHIVE_CONFIG
    value: /etc/veriff-archive/{{ .file }}
  {{- with $values.ledger.urlSecret }}
  {{- if .name }}
  - name: VERIFF_ARCHIVE__LEDGER__URL
    valueFrom:
      secretKeyRef:
        name: {{ .name }}
        key: {{ .key }}
  {{- end }}
  {{- end }}
  {{- with $values.env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- /* A kind of worker that states its own replaces all of the common ones. */}}
resources:
  {{- toYaml (.resources | default $values.resources) | nindent 2 }}
volumeMounts:
  # The folder, not single files: only then does a changed ConfigMap or Secret show without a restart.
  - name: config
    mountPath: /etc/veriff-archive
    readOnly: true
  - name: tmp
    mountPath: /tmp
  {{- if $values.secrets.existingSecret }}
  - name: secrets
    mountPath: /run/secrets/veriff-archive
    readOnly: true
  {{- end }}
  {{- if include "va.checks" . }}
  - name: public-key
    mountPath: /etc/veriff-archive-signing
    readOnly: true
  {{- end }}
  {{- if include "va.signs" . }}
  - name: signing
    mountPath: /run/secrets/veriff-archive-signing
    readOnly: true
  {{- end }}
  {{- if $values.ledger.caConfigMap.name }}
  - name: ledger-ca
    mountPath: /etc/veriff-archive-ca
    readOnly: true
  {{- end }}
  {{- if not (include "va.isPostgres" .root) }}
  - name: ledger
    mountPath: /var/lib/veriff-archive
  {{- end }}
{{- end -}}

{{/* The arguments that every run has. */}}
{{- define "va.runArgs" -}}
- run
- --drain-timeout={{ int .Values.drainTimeoutSeconds }}s
- --limit-exit-code=0
- --progress=log
- --log-format=json
- --output=json
{{- end -}}

{{/* The rules that every Job of the program begins with; see docs/operations.md. */}}
{{- define "va.failurePolicy" -}}
podFailurePolicy:
  rules:
    # Wrong usage, refused credentials or an unfit bucket, invalid configuration: nothing that starting again cures.
    - action: FailJob
      onExitCodes:
        operator: In
        values: [2, 77, 78]
    # A drained node, a preempted or evicted pod: not the worker's fault, and free.
    - action: Ignore
      onPodConditions:
        - type: DisruptionTarget
          status: "True"
{{- end -}}
