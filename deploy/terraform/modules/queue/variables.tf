variable "name" {
  description = "The name of the queue; the dead-letter queue has \"-dead\" behind it."
  type        = string
}

variable "max_receive_count" {
  description = "How often a message is handed out before it is a dead letter. Failed sessions are released with a growing delay, so ten spread over days."
  type        = number
  default     = 10
}

variable "kms_key_arn" {
  description = "A key of your own for the messages; empty for SQS's."
  type        = string
  default     = ""
}

variable "alarm_actions" {
  description = "Topics to notify of the first dead letter; empty for none."
  type        = list(string)
  default     = []
}

variable "tags" {
  description = "Tags of all that is made here."
  type        = map(string)
  default     = {}
}
