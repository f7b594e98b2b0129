# Roles that have nothing in common: who writes cannot delete, who reads cannot write, who takes evidence out can write
# down only that, who deletes is apart. The last two are assumed by people or a pipeline, not by a pod.

locals {
  root    = "${var.bucket_arn}/${var.prefix == "" ? "" : "${var.prefix}/"}"
  objects = "${local.root}*"
  events  = "${local.root}events/*"

  service_accounts = {
    archiver = var.archiver_service_account
    auditor  = var.auditor_service_account
  }
}

# --- Who may become one of the two that run in Kubernetes ---------------------------------------------------------------

data "aws_iam_policy_document" "trust" {
  for_each = local.service_accounts

  dynamic "statement" {
    for_each = var.oidc_provider_arn == "" ? [] : [1]

    content {
      sid     = "Irsa"
      actions = ["sts:AssumeRoleWithWebIdentity"]

      principals {
        type        = "Federated"
        identifiers = [var.oidc_provider_arn]
      }

      condition {
        test     = "StringEquals"
        variable = "${var.oidc_issuer}:sub"
        values   = ["system:serviceaccount:${var.namespace}:${each.value}"]
      }

      condition {
        test     = "StringEquals"
        variable = "${var.oidc_issuer}:aud"
        values   = ["sts.amazonaws.com"]
      }
    }
  }

  dynamic "statement" {
    for_each = var.pod_identity ? [1] : []

    content {
      sid     = "PodIdentity"
      actions = ["sts:AssumeRole", "sts:TagSession"]

      principals {
        type        = "Service"
        identifiers = ["pods.eks.amazonaws.com"]
      }

      condition {
        test     = "StringEquals"
        variable = "aws:RequestTag/kubernetes-namespace"
        values   = [var.namespace]
      }

      condition {
        test     = "StringEquals"
        variable = "aws:RequestTag/kubernetes-service-account"
        values   = [each.value]
      }
    }
  }
}

resource "aws_iam_role" "pod" {
  for_each = local.service_accounts

  name                 = "${var.name}-${each.key}"
  assume_role_policy   = data.aws_iam_policy_document.trust[each.key].json
  max_session_duration = 43200
  tags                 = var.tags

  lifecycle {
    precondition {
      condition     = var.pod_identity || (var.oidc_provider_arn != "" && var.oidc_issuer != "")
      error_message = "Give oidc_provider_arn and oidc_issuer for IRSA, or pod_identity = true."
    }
  }
}

# --- The archiver -------------------------------------------------------------------------------------------------------

data "aws_iam_policy_document" "archiver" {
  # The prefix is no condition here: that the bucket is there and reachable is asked without one.
  statement {
    sid = "LookAtTheBucket"
    actions = [
      "s3:GetBucketObjectLockConfiguration",
      "s3:GetBucketVersioning",
      "s3:ListBucket",
      "s3:ListBucketVersions",
    ]
    resources = [var.bucket_arn]
  }

  # AbortMultipartUpload gives up what is not an object yet. There is no right here that deletes, and none to bypass.
  statement {
    sid = "WriteAndLock"
    actions = [
      "s3:AbortMultipartUpload",
      "s3:GetObject",
      "s3:GetObjectRetention",
      "s3:GetObjectVersion",
      "s3:PutObject",
      "s3:PutObjectRetention",
    ]
    resources = [local.objects]
  }

  dynamic "statement" {
    for_each = var.kms_key_arn == "" ? [] : [1]

    content {
      sid       = "Encrypt"
      actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
      resources = [var.kms_key_arn]

      condition {
        test     = "StringLike"
        variable = "kms:ViaService"
        values   = ["s3.*.amazonaws.com"]
      }
    }
  }

  dynamic "statement" {
    for_each = length(var.input_object_arns) > 0 ? [1] : []

    content {
      sid       = "ReadLists"
      actions   = ["s3:GetObject"]
      resources = var.input_object_arns
    }
  }

  dynamic "statement" {
    for_each = length(var.queue_arns) > 0 ? [1] : []

    content {
      sid = "WorkOnTheQueue"
      actions = [
        "sqs:ChangeMessageVisibility",
        "sqs:DeleteMessage",
        "sqs:GetQueueAttributes",
        "sqs:ReceiveMessage",
      ]
      resources = var.queue_arns
    }
  }

  dynamic "statement" {
    for_each = var.queue_kms_key_arn == "" ? [] : [1]

    content {
      sid       = "DecryptMessages"
      actions   = ["kms:Decrypt"]
      resources = [var.queue_kms_key_arn]

      condition {
        test     = "StringLike"
        variable = "kms:ViaService"
        values   = ["sqs.*.amazonaws.com"]
      }
    }
  }
}

resource "aws_iam_role_policy" "archiver" {
  name   = "archive"
  role   = aws_iam_role.pod["archiver"].id
  policy = data.aws_iam_policy_document.archiver.json
}

# --- The auditor --------------------------------------------------------------------------------------------------------

data "aws_iam_policy_document" "auditor" {
  # With what `doctor` reads beyond the archiver's permissions.
  statement {
    sid = "LookAtTheBucket"
    actions = [
      "s3:GetBucketObjectLockConfiguration",
      "s3:GetBucketPublicAccessBlock",
      "s3:GetBucketVersioning",
      "s3:GetEncryptionConfiguration",
      "s3:GetLifecycleConfiguration",
      "s3:ListBucket",
      "s3:ListBucketVersions",
    ]
    resources = [var.bucket_arn]
  }

  statement {
    sid = "Read"
    actions = [
      "s3:GetObject",
      "s3:GetObjectLegalHold",
      "s3:GetObjectRetention",
      "s3:GetObjectVersion",
    ]
    resources = [local.objects]
  }

  dynamic "statement" {
    for_each = var.kms_key_arn == "" ? [] : [1]

    content {
      sid       = "Decrypt"
      actions   = ["kms:Decrypt"]
      resources = [var.kms_key_arn]

      condition {
        test     = "StringLike"
        variable = "kms:ViaService"
        values   = ["s3.*.amazonaws.com"]
      }
    }
  }
}

resource "aws_iam_role_policy" "auditor" {
  name   = "audit"
  role   = aws_iam_role.pod["auditor"].id
  policy = data.aws_iam_policy_document.auditor.json
}

# --- The exporter -------------------------------------------------------------------------------------------------------

data "aws_iam_policy_document" "exporter_trust" {
  count = length(var.exporter_principal_arns) > 0 ? 1 : 0

  statement {
    sid     = "PeopleOrAPipeline"
    actions = ["sts:AssumeRole"]

    principals {
      type        = "AWS"
      identifiers = var.exporter_principal_arns
    }
  }
}

resource "aws_iam_role" "exporter" {
  count = length(var.exporter_principal_arns) > 0 ? 1 : 0

  name               = "${var.name}-exporter"
  assume_role_policy = data.aws_iam_policy_document.exporter_trust[0].json
  tags               = var.tags
}

# Reads as the auditor does, and writes one thing: who takes what out, and why. Without that document an export is refused.
data "aws_iam_policy_document" "exporter" {
  source_policy_documents = [data.aws_iam_policy_document.auditor.json]

  statement {
    sid       = "WriteItDown"
    actions   = ["s3:PutObject", "s3:PutObjectRetention"]
    resources = [local.events]
  }

  dynamic "statement" {
    for_each = var.kms_key_arn == "" ? [] : [1]

    content {
      sid       = "Encrypt"
      actions   = ["kms:GenerateDataKey"]
      resources = [var.kms_key_arn]

      condition {
        test     = "StringLike"
        variable = "kms:ViaService"
        values   = ["s3.*.amazonaws.com"]
      }
    }
  }
}

resource "aws_iam_role_policy" "exporter" {
  count = length(var.exporter_principal_arns) > 0 ? 1 : 0

  name   = "export"
  role   = aws_iam_role.exporter[0].id
  policy = data.aws_iam_policy_document.exporter.json
}

# --- The expirer --------------------------------------------------------------------------------------------------------

data "aws_iam_policy_document" "expirer_trust" {
  count = length(var.expirer_principal_arns) > 0 ? 1 : 0

  statement {
    sid     = "PeopleOrAPipeline"
    actions = ["sts:AssumeRole"]

    principals {
      type        = "AWS"
      identifiers = var.expirer_principal_arns
    }
  }
}

resource "aws_iam_role" "expirer" {
  count = length(var.expirer_principal_arns) > 0 ? 1 : 0

  name               = "${var.name}-expirer"
  assume_role_policy = data.aws_iam_policy_document.expirer_trust[0].json
  tags               = var.tags
}

# What is expired is written down before it is deleted, so the expirer also writes; S3 itself refuses to delete before
# the lock of a version has ended.
data "aws_iam_policy_document" "expirer" {
  statement {
    sid = "LookAtTheBucket"
    actions = [
      "s3:GetBucketObjectLockConfiguration",
      "s3:GetBucketVersioning",
      "s3:ListBucket",
      "s3:ListBucketVersions",
    ]
    resources = [var.bucket_arn]
  }

  statement {
    sid = "ExpireAndWriteItDown"
    actions = concat(
      [
        "s3:DeleteObjectVersion",
        "s3:GetObject",
        "s3:GetObjectLegalHold",
        "s3:GetObjectRetention",
        "s3:GetObjectVersion",
        "s3:PutObject",
        "s3:PutObjectRetention",
      ],
      var.expirer_may_bypass_governance ? ["s3:BypassGovernanceRetention"] : [],
    )
    resources = [local.objects]
  }

  dynamic "statement" {
    for_each = var.kms_key_arn == "" ? [] : [1]

    content {
      sid       = "Encrypt"
      actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
      resources = [var.kms_key_arn]

      condition {
        test     = "StringLike"
        variable = "kms:ViaService"
        values   = ["s3.*.amazonaws.com"]
      }
    }
  }
}

resource "aws_iam_role_policy" "expirer" {
  count = length(var.expirer_principal_arns) > 0 ? 1 : 0

  name   = "expire"
  role   = aws_iam_role.expirer[0].id
  policy = data.aws_iam_policy_document.expirer.json
}
