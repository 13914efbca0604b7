{{- define "drivetrain.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "drivetrain.fullname" -}}
{{- $name := include "drivetrain.name" . -}}
{{- if .Values.fullnameOverride }}{{ .Values.fullnameOverride | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- /* Labels of every object of the release. managed-by is Helm's, so that the operator may not touch them. */}}
{{- define "drivetrain.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/name: {{ include "drivetrain.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: drivetrain
{{- end }}

{{- /* What selects the Pods of one component: (dict "of" $ "component" "operator"). Never changes. */}}
{{- define "drivetrain.selector" -}}
app.kubernetes.io/name: {{ include "drivetrain.name" .of }}
app.kubernetes.io/instance: {{ .of.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "drivetrain.account" -}}
{{- .Values.serviceAccount.name | default (include "drivetrain.fullname" .) }}
{{- end }}

{{- define "drivetrain.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "drivetrain.rayImage" -}}
{{ .Values.rayImage.repository }}:{{ .Values.rayImage.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "drivetrain.mlflowUrl" -}}
{{- if .Values.mlflow.url }}{{ .Values.mlflow.url }}
{{- else if .Values.evaluation.enabled }}http://{{ include "drivetrain.fullname" . }}-mlflow.{{ .Release.Namespace }}.svc:5000{{ end }}
{{- end }}

{{- define "drivetrain.s3Url" -}}
http://{{ include "drivetrain.fullname" . }}-s3.{{ .Release.Namespace }}.svc:7070
{{- end }}

{{- define "drivetrain.s3Secret" -}}
{{- .Values.evaluation.s3.rootSecretName | default (printf "%s-s3" (include "drivetrain.fullname" .)) }}
{{- end }}

{{- /* Pod Security `restricted`: of a Pod, and of each container. */}}
{{- define "drivetrain.podSecurity" -}}
runAsNonRoot: true
runAsUser: 1000
runAsGroup: 1000
fsGroup: 1000
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "drivetrain.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}
