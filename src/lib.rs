//! veriff-archive
