output "name" {
  description = "The name of the bucket."
  value       = aws_s3_bucket.archive.id
}

output "arn" {
  description = "The ARN of the bucket."
  value       = aws_s3_bucket.archive.arn
}

output "kms_key_arn" {
  description = "The ARN of the key: store.kms_key_id, with sse = \"aws:kms\"."
  value       = aws_kms_key.archive.arn
}
