# The bucket of an archive: Object Lock, versions, its own key, and a policy that refuses what the program never does.

locals {
  objects = "${aws_s3_bucket.archive.arn}/*"
  root    = "${aws_s3_bucket.archive.arn}/${var.prefix == "" ? "" : "${var.prefix}/"}"

  # Multipart uploads are authorised part by part, and neither a part nor the completion carries the headers of a lock.
  # So a policy can demand them only where the program writes in one piece: see the variable.
  always_one_put = [for pattern in var.lock_headers_required_on : "${local.root}${pattern}"]
}

resource "aws_kms_key" "archive" {
  description             = "Objects of the archive in ${var.bucket_name}"
  enable_key_rotation     = true
  deletion_window_in_days = 30
  policy                  = data.aws_iam_policy_document.key.json
  tags                    = var.tags

  lifecycle {
    # Without the key the archive is unreadable, locks or not.
    prevent_destroy = true
  }
}

resource "aws_kms_alias" "archive" {
  name          = "alias/${var.bucket_name}"
  target_key_id = aws_kms_key.archive.key_id
}

# Who may use the key is said by the policies of the roles, as everywhere else in the account.
data "aws_iam_policy_document" "key" {
  #checkov:skip=CKV_AWS_109: The account itself must keep the key manageable; what roles may do is in their own policies.
  #checkov:skip=CKV_AWS_111: As above.
  #checkov:skip=CKV_AWS_356: In a key's policy the resource is the key itself, written "*".
  statement {
    sid       = "Account"
    actions   = ["kms:*"]
    resources = ["*"]

    principals {
      type        = "AWS"
      identifiers = ["arn:${data.aws_partition.current.partition}:iam::${data.aws_caller_identity.current.account_id}:root"]
    }
  }
}

data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}

resource "aws_s3_bucket" "archive" {
  #checkov:skip=CKV_AWS_18: Access is logged by CloudTrail's data events, which also record who and from where; a log bucket is optional.
  #checkov:skip=CKV_AWS_144: A second region is a separate decision (residency of personal data); docs/operations.md explains how.
  #checkov:skip=CKV2_AWS_62: Nothing reacts to objects of an archive.
  bucket              = var.bucket_name
  object_lock_enabled = true
  tags                = var.tags

  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_s3_bucket_versioning" "archive" {
  bucket = aws_s3_bucket.archive.id

  versioning_configuration {
    status = "Enabled"
  }
}

# Without a default rule: the program asks for the lock of each object, and a default would also lock what should not be.
resource "aws_s3_bucket_object_lock_configuration" "archive" {
  bucket              = aws_s3_bucket.archive.id
  object_lock_enabled = "Enabled"

  dynamic "rule" {
    for_each = var.default_retention_days > 0 ? [1] : []

    content {
      default_retention {
        mode = "GOVERNANCE"
        days = var.default_retention_days
      }
    }
  }

  depends_on = [aws_s3_bucket_versioning.archive]
}

resource "aws_s3_bucket_server_side_encryption_configuration" "archive" {
  bucket = aws_s3_bucket.archive.id

  rule {
    # One request to KMS for many objects instead of one for each: at 100 objects a second that is the difference.
    bucket_key_enabled = true

    apply_server_side_encryption_by_default {
      sse_algorithm     = "aws:kms"
      kms_master_key_id = aws_kms_key.archive.arn
    }
  }
}

resource "aws_s3_bucket_public_access_block" "archive" {
  bucket                  = aws_s3_bucket.archive.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "archive" {
  bucket = aws_s3_bucket.archive.id

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "archive" {
  bucket = aws_s3_bucket.archive.id

  # Parts of uploads that a killed worker left are invisible and cost money. Nothing is ever expired by a rule: what
  # expires, expires by plan, and is written down.
  rule {
    id     = "unfinished-uploads"
    status = "Enabled"

    filter {}

    abort_incomplete_multipart_upload {
      days_after_initiation = 7
    }
  }

  depends_on = [aws_s3_bucket_versioning.archive]
}

resource "aws_s3_bucket_logging" "archive" {
  count = var.log_bucket == "" ? 0 : 1

  bucket        = aws_s3_bucket.archive.id
  target_bucket = var.log_bucket
  target_prefix = "${var.bucket_name}/"
}

resource "aws_s3_bucket_policy" "archive" {
  bucket = aws_s3_bucket.archive.id
  policy = data.aws_iam_policy_document.bucket.json

  depends_on = [aws_s3_bucket_public_access_block.archive]
}

# Only refusals: who may do what is said by the roles. Each one holds for everybody, administrators included, until
# someone changes this policy, which CloudTrail shows.
data "aws_iam_policy_document" "bucket" {
  statement {
    sid       = "DenyPlainHttp"
    effect    = "Deny"
    actions   = ["s3:*"]
    resources = [aws_s3_bucket.archive.arn, local.objects]

    principals {
      type        = "*"
      identifiers = ["*"]
    }

    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }

  # s3:ObjectCreationOperation is true for PutObject, CompleteMultipartUpload and CopyObject, and false for creating an
  # upload and for its parts, which cannot be conditional. As a side effect nothing can be copied into the bucket: a copy
  # cannot be conditional either.
  statement {
    sid       = "DenyUnconditionalWrites"
    effect    = "Deny"
    actions   = ["s3:PutObject"]
    resources = [local.objects]

    principals {
      type        = "*"
      identifiers = ["*"]
    }

    condition {
      test     = "Null"
      variable = "s3:if-none-match"
      values   = ["true"]
    }

    condition {
      test     = "Bool"
      variable = "s3:ObjectCreationOperation"
      values   = ["true"]
    }
  }

  # A worker that is configured not to lock is refused at its very first object, archive.json; one that loses the headers
  # later, at the next sidecar.
  dynamic "statement" {
    for_each = length(local.always_one_put) > 0 ? [1] : []

    content {
      sid       = "DenyUnlockedPuts"
      effect    = "Deny"
      actions   = ["s3:PutObject"]
      resources = local.always_one_put

      principals {
        type        = "*"
        identifiers = ["*"]
      }

      condition {
        test     = "Null"
        variable = "s3:object-lock-mode"
        values   = ["true"]
      }
    }
  }

  # A guard against a slip: nobody can take back a COMPLIANCE lock of a hundred years.
  statement {
    sid       = "DenyLocksTooLong"
    effect    = "Deny"
    actions   = ["s3:PutObject", "s3:PutObjectRetention"]
    resources = [local.objects]

    principals {
      type        = "*"
      identifiers = ["*"]
    }

    condition {
      test     = "NumericGreaterThan"
      variable = "s3:object-lock-remaining-retention-days"
      values   = [tostring(var.max_retention_days)]
    }
  }

  # Deleting without a version id only lays a marker over an object, which the program rightly takes for an alarm.
  statement {
    sid    = "DenyDeletion"
    effect = "Deny"
    actions = [
      "s3:BypassGovernanceRetention",
      "s3:DeleteObject",
      "s3:DeleteObjectVersion",
    ]
    resources = [local.objects]

    principals {
      type        = "*"
      identifiers = ["*"]
    }

    dynamic "condition" {
      for_each = length(var.expirer_role_arns) > 0 ? [1] : []

      content {
        test     = "ArnNotEquals"
        variable = "aws:PrincipalArn"
        values   = var.expirer_role_arns
      }
    }
  }
}
