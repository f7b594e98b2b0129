//! What tests stand on: servers that are real and start by themselves, and a look behind what the program sees.

pub(crate) mod evidence;
pub(crate) mod faulty;
pub(crate) mod postgres;
pub(crate) mod program;
pub(crate) mod python;
pub(crate) mod s3;
pub(crate) mod scene;
pub(crate) mod stored;
