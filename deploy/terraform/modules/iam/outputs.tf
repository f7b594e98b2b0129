output "archiver_role_arn" {
  description = "For serviceAccounts.archiver of the chart."
  value       = aws_iam_role.pod["archiver"].arn
}

output "auditor_role_arn" {
  description = "For serviceAccounts.auditor of the chart."
  value       = aws_iam_role.pod["auditor"].arn
}

output "exporter_role_arn" {
  description = "For the person who runs export; null without one."
  value       = one(aws_iam_role.exporter[*].arn)
}

output "expirer_role_arn" {
  description = "The only role that may delete, for the bucket's policy; null without one."
  value       = one(aws_iam_role.expirer[*].arn)
}
