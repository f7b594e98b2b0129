output "url" {
  description = "The URL of the queue, for `run --queue`."
  value       = aws_sqs_queue.sessions.url
}

output "arn" {
  description = "The ARN of the queue."
  value       = aws_sqs_queue.sessions.arn
}

output "dead_letter_url" {
  description = "The URL of the dead-letter queue."
  value       = aws_sqs_queue.dead.url
}
