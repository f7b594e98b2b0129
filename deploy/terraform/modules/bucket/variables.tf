variable "bucket_name" {
  description = "The name of the bucket."
  type        = string
}

variable "prefix" {
  description = "The prefix of the archive, as in store.url, without slashes around it; empty for none."
  type        = string
  default     = ""
}

variable "expirer_role_arns" {
  description = "The roles that may delete object versions and, if their own policy lets them, bypass governance. Empty: nobody."
  type        = list(string)
  default     = []
}

variable "max_retention_days" {
  description = "No lock may last longer, counted from the day it is set. At least max_period of the longest class, and two days."
  type        = number
  default     = 3660
}

variable "lock_headers_required_on" {
  description = <<-TEXT
    Patterns of keys, below the prefix, whose writes must carry the headers of a lock. By default all documents of the
    archive. Media are left out: above 16 MiB they are multipart uploads, whose parts and completion have no such headers
    and would be refused. Add "*.jpg" and the like only if no image will ever be that long. Empty: none, for an archive
    with mode = "none".
  TEXT
  type        = list(string)
  default     = ["*.json", "*.json.sig", "*.ndjson.gz"]
}

variable "default_retention_days" {
  description = "A GOVERNANCE lock for whatever is written without one, media included; 0 for none. Headers of a request win over it."
  type        = number
  default     = 0
}

variable "log_bucket" {
  description = "A bucket for S3's access logs; empty for none."
  type        = string
  default     = ""
}

variable "tags" {
  description = "Tags of all that is made here."
  type        = map(string)
  default     = {}
}
