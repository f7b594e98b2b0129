variable "region" {
  description = "Where the archive is kept."
  type        = string
  default     = "eu-central-1"
}

variable "bucket_name" {
  description = "The name of the bucket."
  type        = string
}

variable "namespace" {
  description = "The namespace of the release."
  type        = string
  default     = "veriff-archive"
}

variable "oidc_provider_arn" {
  description = "The OIDC provider of the cluster, for IRSA; empty for Pod Identity."
  type        = string
  default     = ""
}

variable "oidc_issuer" {
  description = "Its issuer without https://."
  type        = string
  default     = ""
}

variable "input_object_arns" {
  description = "Lists of sessions that are read from S3."
  type        = list(string)
  default     = []
}

variable "exporter_principal_arns" {
  description = "Who may become the exporter; empty for nobody."
  type        = list(string)
  default     = []
}

variable "expirer_principal_arns" {
  description = "Who may become the expirer; empty for nobody."
  type        = list(string)
  default     = []
}

variable "alarm_topic_arns" {
  description = "Topics to notify of dead letters."
  type        = list(string)
  default     = []
}
