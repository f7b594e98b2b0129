variable "name" {
  description = "The beginning of the names of the roles."
  type        = string
  default     = "veriff-archive"
}

variable "bucket_arn" {
  description = "The ARN of the bucket."
  type        = string
}

variable "prefix" {
  description = "The prefix of the archive, as in store.url, without slashes around it; empty for none."
  type        = string
  default     = ""
}

variable "kms_key_arn" {
  description = "The key of the bucket; empty with SSE-S3."
  type        = string
  default     = ""
}

variable "queue_arns" {
  description = "The queues to work on."
  type        = list(string)
  default     = []
}

variable "queue_kms_key_arn" {
  description = "The key of the queues; empty with SQS's own."
  type        = string
  default     = ""
}

variable "input_object_arns" {
  description = "Lists of sessions that are read from S3: arn:aws:s3:::bucket/exports/*."
  type        = list(string)
  default     = []
}

variable "namespace" {
  description = "The namespace of the release."
  type        = string
}

variable "archiver_service_account" {
  description = "The ServiceAccount of the workers, as the chart names it."
  type        = string
  default     = "veriff-archive-archiver"
}

variable "auditor_service_account" {
  description = "The ServiceAccount of the check and the audits, as the chart names it."
  type        = string
  default     = "veriff-archive-auditor"
}

variable "oidc_provider_arn" {
  description = "For IRSA: the OIDC provider of the cluster. Empty: no IRSA."
  type        = string
  default     = ""
}

variable "oidc_issuer" {
  description = "For IRSA: the issuer without https://."
  type        = string
  default     = ""
}

variable "pod_identity" {
  description = "For EKS Pod Identity; the associations are made with the cluster."
  type        = bool
  default     = false
}

variable "exporter_principal_arns" {
  description = "Who may become the exporter, who takes evidence out: roles of people or of a pipeline. Empty: there is no exporter."
  type        = list(string)
  default     = []
}

variable "expirer_principal_arns" {
  description = "Who may become the expirer: roles of people or of a pipeline. Empty: there is no expirer."
  type        = list(string)
  default     = []
}

variable "expirer_may_bypass_governance" {
  description = "Lets the expirer delete before a GOVERNANCE lock ends, for lawful erasure. COMPLIANCE locks end for nobody."
  type        = bool
  default     = false
}

variable "tags" {
  description = "Tags of all that is made here."
  type        = map(string)
  default     = {}
}
