# All of it together: a bucket with its key, a queue with its dead letters, three roles. What the chart needs is in the
# outputs.

terraform {
  required_version = ">= 1.5"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.80"
    }
  }
}

provider "aws" {
  region = var.region

  default_tags {
    tags = { application = "veriff-archive" }
  }
}

locals {
  prefix = "veriff"
}

module "bucket" {
  source = "../../modules/bucket"

  bucket_name       = var.bucket_name
  prefix            = local.prefix
  expirer_role_arns = compact([module.iam.expirer_role_arn])

  # max_period = "10y" and the days that rounding up and leap years add.
  max_retention_days = 3660
}

module "queue" {
  source = "../../modules/queue"

  name          = "veriff-archive"
  alarm_actions = var.alarm_topic_arns
}

module "iam" {
  source = "../../modules/iam"

  bucket_arn        = module.bucket.arn
  prefix            = local.prefix
  kms_key_arn       = module.bucket.kms_key_arn
  queue_arns        = [module.queue.arn]
  input_object_arns = var.input_object_arns

  namespace         = var.namespace
  oidc_provider_arn = var.oidc_provider_arn
  oidc_issuer       = var.oidc_issuer
  pod_identity      = var.oidc_provider_arn == ""

  expirer_principal_arns  = var.expirer_principal_arns
  exporter_principal_arns = var.exporter_principal_arns
}
