output "store_url" {
  description = "config.store.url of the chart."
  value       = "s3://${module.bucket.name}/${local.prefix}"
}

output "kms_key_arn" {
  description = "config.store.kms_key_id, with sse: aws:kms."
  value       = module.bucket.kms_key_arn
}

output "queue_url" {
  description = "queue.url of the chart."
  value       = module.queue.url
}

output "archiver_role_arn" {
  description = "serviceAccounts.archiver."
  value       = module.iam.archiver_role_arn
}

output "auditor_role_arn" {
  description = "serviceAccounts.auditor."
  value       = module.iam.auditor_role_arn
}
